#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "arguments.h"
#include "crops.h"

namespace {

Dense<int32_t> crop_boxes(const Dense<int64_t>& ids, const Dense<uint16_t>& heights, const Dense<uint16_t>& widths,
                          const std::string& kind, bool flip, int out_height, int out_width,
                          const std::vector<double>& parameters, uint64_t seed, uint32_t epoch) {
    check_size("heights", heights.size(), ids.size());
    check_size("widths", widths.size(), ids.size());
    const dualfast::CropKind* crop = dualfast::find_crop_kind(kind);
    if (crop == nullptr) throw py::value_error("kind is '" + kind + "'; csrc/crops.cpp has no crop of that name");
    check_size("parameters", static_cast<py::ssize_t>(parameters.size()), static_cast<py::ssize_t>(crop->n_parameters));
    if (out_height < 1 || out_width < 1) {
        throw py::value_error("the output is " + std::to_string(out_height) + " x " + std::to_string(out_width) +
                              "; it must be at least 1 x 1");
    }
    const dualfast::CropSpec spec{flip, out_height, out_width, parameters.data()};
    Dense<int32_t> boxes({ids.size(), static_cast<py::ssize_t>(5)});
    static_assert(sizeof(dualfast::Box) == 5 * sizeof(int32_t));
    auto* out = reinterpret_cast<dualfast::Box*>(boxes.mutable_data());
    const auto n = static_cast<size_t>(ids.size());
    const int64_t* id = ids.data();
    const uint16_t *height = heights.data(), *width = widths.data();
    py::gil_scoped_release release;
    dualfast::crop_boxes(id, height, width, n, *crop, spec, seed, epoch, out);
    return boxes;
}

}  // namespace

void register_crops(py::module_& m) {
    m.def("crop_boxes", &crop_boxes, py::arg("ids").noconvert(), py::arg("heights").noconvert(),
          py::arg("widths").noconvert(), py::arg("kind"), py::arg("flip"), py::arg("out_height"), py::arg("out_width"),
          py::arg("parameters"), py::arg("seed"), py::arg("epoch"));
}
