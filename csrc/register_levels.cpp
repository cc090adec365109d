#include <pybind11/pybind11.h>

#include <algorithm>

#include "levels.h"

namespace py = pybind11;

namespace {

void set_level(int level) { dualfast::level() = std::clamp(level, 0, dualfast::highest_level()); }

}  // namespace

void register_levels(py::module_& m) { m.def("set_level", &set_level, py::arg("level")); }
