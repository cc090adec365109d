#include <string>

#include "arguments.h"
#include "guard.h"

namespace {

int checked(int number) {
    if (number >= 0 && number < dualfast::kMaps) return number;
    throw py::value_error("number is " + std::to_string(number) + "; give what guard_map returned");
}

}  // namespace

void register_guard(py::module_& m) {
    m.def(
        "guard_map",
        [](const Dense<uint8_t>& data) { return dualfast::guard_map(data.data(), static_cast<size_t>(data.size())); },
        py::arg("data").noconvert());
    m.def("map_was_cut", [](int number) { return dualfast::map_was_cut(checked(number)); }, py::arg("number"));
    m.def("release_map", [](int number) { dualfast::release_map(checked(number)); }, py::arg("number"));
}
