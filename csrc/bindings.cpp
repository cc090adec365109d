// The only file that knows Python: checks dtype, layout and size, releases the GIL, calls the logic.
#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace {

// ---- step -----------------------------------------------------------------------------------------------------------

void register_step(py::module_&) {}

// ---- select ---------------------------------------------------------------------------------------------------------

void register_select(py::module_&) {}

// ---- beton ----------------------------------------------------------------------------------------------------------

void register_beton(py::module_&) {}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "Compiled operations of dualfast; called through dualfast.ops.";
    m.attr("__version__") = DUALFAST_VERSION;
    register_step(m);
    register_select(m);
    register_beton(m);
}
