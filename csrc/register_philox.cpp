#include <string>
#include <utility>

#include "arguments.h"
#include "crop.h"
#include "philox.h"

namespace {

Dense<uint64_t> order_keys(const Dense<int64_t>& ids, uint64_t seed, uint32_t epoch) {
    Dense<uint64_t> keys(ids.size());
    uint64_t* out = keys.mutable_data();
    const int64_t* id = ids.data();
    const auto n = static_cast<size_t>(ids.size());
    py::gil_scoped_release release;
    dualfast::order_keys(id, n, seed, epoch, out);
    return keys;
}

Dense<int32_t> crop_boxes(const Dense<int64_t>& ids, const Dense<uint16_t>& heights, const Dense<uint16_t>& widths,
                          int kind, bool flip, int out_height, int out_width, double fraction, double pad,
                          std::pair<double, double> scale, std::pair<double, double> ratio, uint64_t seed,
                          uint32_t epoch) {
    check_size("heights", heights.size(), ids.size());
    check_size("widths", widths.size(), ids.size());
    if (kind < 0 || kind > 2) throw py::value_error("kind is " + std::to_string(kind) + "; it must be 0, 1 or 2");
    if (out_height < 1 || out_width < 1) {
        throw py::value_error("the output is " + std::to_string(out_height) + " x " + std::to_string(out_width) +
                              "; it must be at least 1 x 1");
    }
    const dualfast::CropSpec spec{
        static_cast<dualfast::Crop>(kind), flip, out_height, out_width, fraction, pad, {scale.first, scale.second},
        {ratio.first, ratio.second}};
    Dense<int32_t> boxes({ids.size(), static_cast<py::ssize_t>(5)});
    static_assert(sizeof(dualfast::Box) == 5 * sizeof(int32_t));
    auto* out = reinterpret_cast<dualfast::Box*>(boxes.mutable_data());
    const auto n = static_cast<size_t>(ids.size());
    const int64_t* id = ids.data();
    const uint16_t *height = heights.data(), *width = widths.data();
    py::gil_scoped_release release;
    dualfast::crop_boxes(id, height, width, n, spec, seed, epoch, out);
    return boxes;
}

}  // namespace

void register_philox(py::module_& m) {
    m.def("order_keys", &order_keys, py::arg("ids").noconvert(), py::arg("seed"), py::arg("epoch"));
    m.def("crop_boxes", &crop_boxes, py::arg("ids").noconvert(), py::arg("heights").noconvert(),
          py::arg("widths").noconvert(), py::arg("kind"), py::arg("flip"), py::arg("out_height"), py::arg("out_width"),
          py::arg("fraction"), py::arg("pad"), py::arg("scale"), py::arg("ratio"), py::arg("seed"), py::arg("epoch"));
}
