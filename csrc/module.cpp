// The compiled module. Only this file and the register_*.cpp files know Python: they check dtype, layout and size,
// release the GIL and call the logic.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void register_crops(py::module_& m);
void register_guard(py::module_& m);
void register_images(py::module_& m);
void register_levels(py::module_& m);
void register_philox(py::module_& m);
void register_ranks(py::module_& m);
void register_select(py::module_& m);
void register_step(py::module_& m);

PYBIND11_MODULE(_C, m) {
    m.doc() = "Compiled operations of dualfast; called through dualfast.ops.";
    m.attr("__version__") = DUALFAST_VERSION;
    register_crops(m);
    register_guard(m);
    register_images(m);
    register_levels(m);
    register_philox(m);
    register_ranks(m);
    register_select(m);
    register_step(m);
}
