// The only file that knows Python: checks dtype, layout and size, releases the GIL, calls the logic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "beton.h"

namespace py = pybind11;

namespace {

// ---- step -----------------------------------------------------------------------------------------------------------

void register_step(py::module_&) {}

// ---- select ---------------------------------------------------------------------------------------------------------

void register_select(py::module_&) {}

// ---- beton ----------------------------------------------------------------------------------------------------------

template <class T>
using Array = py::array_t<T, py::array::c_style>;  // arguments are taken with noconvert(): no silent copies

void check_length(const char* name, py::ssize_t size, py::ssize_t wanted) {
    if (size != wanted) {
        throw py::value_error(std::string(name) + " holds " + std::to_string(size) + " values; it must hold " +
                              std::to_string(wanted));
    }
}

Array<uint64_t> order_keys(const Array<int64_t>& ids, uint64_t seed, uint32_t epoch) {
    Array<uint64_t> keys(ids.size());
    uint64_t* to = keys.mutable_data();
    const int64_t* from = ids.data();
    const auto n = static_cast<size_t>(ids.size());
    py::gil_scoped_release release;
    dualfast::order_keys(from, n, seed, epoch, to);
    return keys;
}

Array<int32_t> crop_boxes(const Array<int64_t>& ids, const Array<uint16_t>& heights, const Array<uint16_t>& widths,
                          int kind, bool flip, int out_height, int out_width, double fraction, double pad,
                          std::pair<double, double> scale, std::pair<double, double> ratio, uint64_t seed,
                          uint32_t epoch) {
    check_length("heights", heights.size(), ids.size());
    check_length("widths", widths.size(), ids.size());
    if (kind < 0 || kind > 2) throw py::value_error("kind is " + std::to_string(kind) + "; it must be 0, 1 or 2");
    if (out_height < 1 || out_width < 1) throw py::value_error("the output must be at least 1 x 1");
    const dualfast::CropSpec spec{
        static_cast<dualfast::Crop>(kind), flip, out_height, out_width, fraction, pad, {scale.first, scale.second},
        {ratio.first, ratio.second}};
    Array<int32_t> boxes({ids.size(), static_cast<py::ssize_t>(5)});
    static_assert(sizeof(dualfast::Box) == 5 * sizeof(int32_t));
    auto* to = reinterpret_cast<dualfast::Box*>(boxes.mutable_data());
    const auto n = static_cast<size_t>(ids.size());
    const int64_t* id = ids.data();
    const uint16_t *height = heights.data(), *width = widths.data();
    py::gil_scoped_release release;
    dualfast::crop_boxes(id, height, width, n, spec, seed, epoch, to);
    return boxes;
}

// `out` (n, height, width, 3) of 1, 2 or 4 bytes a value, `table` (3, 256) and `fill` (3,) of the same kind.
dualfast::Output output_of(py::array& out, const py::array& table, const py::array& fill, py::ssize_t n) {
    const py::ssize_t element = out.itemsize();
    if (element != 1 && element != 2 && element != 4) throw py::type_error("out must have elements of 1, 2 or 4 bytes");
    if (out.ndim() != 4 || out.shape(0) != n || out.shape(3) != 3 || !(out.flags() & py::array::c_style)) {
        throw py::value_error("out must be a C-contiguous (" + std::to_string(n) + ", height, width, 3)");
    }
    for (const py::array& lut : {table, fill}) {
        if (lut.itemsize() != element || !(lut.flags() & py::array::c_style)) {
            throw py::type_error("table and fill must be C-contiguous and have out's element size");
        }
    }
    check_length("table", table.size(), 768);
    check_length("fill", fill.size(), 3);
    return {out.mutable_data(),
            static_cast<int32_t>(out.shape(1)),
            static_cast<int32_t>(out.shape(2)),
            static_cast<int32_t>(element),
            table.data(),
            fill.data()};
}

Array<int32_t> load_images(int fd, const Array<uint64_t>& ptr, const Array<uint64_t>& size, const Array<uint8_t>& mode,
                           const Array<uint16_t>& height, const Array<uint16_t>& width, const Array<int32_t>& boxes,
                           py::array out, const py::array& table, const py::array& fill, int threads) {
    const py::ssize_t n = ptr.size();
    check_length("size", size.size(), n);
    check_length("mode", mode.size(), n);
    check_length("height", height.size(), n);
    check_length("width", width.size(), n);
    check_length("boxes", boxes.size(), 5 * n);
    const dualfast::Output output = output_of(out, table, fill, n);
    const dualfast::Samples samples{static_cast<size_t>(n),
                                    ptr.data(),
                                    size.data(),
                                    mode.data(),
                                    height.data(),
                                    width.data(),
                                    reinterpret_cast<const dualfast::Box*>(boxes.data())};
    for (py::ssize_t i = 0; i < n; ++i) {
        if (samples.mode[i] == 1 && samples.size[i] != uint64_t{3} * samples.height[i] * samples.width[i]) {
            throw py::value_error("size[" + std::to_string(i) + "] is not height x width x 3");
        }
    }
    Array<int32_t> status(n);
    int32_t* to = status.mutable_data();
    py::gil_scoped_release release;
    dualfast::load_images(fd, samples, output, threads, to);
    return status;
}

void place_images(const py::list& pixels, const Array<int32_t>& boxes, py::array out, const py::array& table,
                  const py::array& fill, int threads) {
    const auto n = static_cast<py::ssize_t>(pixels.size());
    check_length("boxes", boxes.size(), 5 * n);
    const dualfast::Output output = output_of(out, table, fill, n);
    std::vector<const uint8_t*> data(pixels.size(), nullptr);
    std::vector<uint16_t> height(pixels.size(), 1), width(pixels.size(), 1);
    for (size_t i = 0; i < pixels.size(); ++i) {
        if (pixels[i].is_none()) continue;
        const auto image = py::cast<Array<uint8_t>>(pixels[i]);
        if (image.ptr() != pixels[i].ptr() || image.ndim() != 3 || image.shape(2) != 3 || image.shape(0) > 0xFFFF ||
            image.shape(1) > 0xFFFF || image.size() == 0) {
            throw py::value_error("pixels[" + std::to_string(i) + "] must be a C-contiguous uint8 (height, width, 3)");
        }
        data[i] = image.data();
        height[i] = static_cast<uint16_t>(image.shape(0));
        width[i] = static_cast<uint16_t>(image.shape(1));
    }
    const dualfast::Samples samples{pixels.size(),
                                    nullptr,
                                    nullptr,
                                    nullptr,
                                    height.data(),
                                    width.data(),
                                    reinterpret_cast<const dualfast::Box*>(boxes.data())};
    py::gil_scoped_release release;
    dualfast::place_images(data.data(), samples, output, threads);
}

void register_beton(py::module_& m) {
    m.def("order_keys", &order_keys, py::arg("ids").noconvert(), py::arg("seed"), py::arg("epoch"));
    m.def("crop_boxes", &crop_boxes, py::arg("ids").noconvert(), py::arg("heights").noconvert(),
          py::arg("widths").noconvert(), py::arg("kind"), py::arg("flip"), py::arg("out_height"), py::arg("out_width"),
          py::arg("fraction"), py::arg("pad"), py::arg("scale"), py::arg("ratio"), py::arg("seed"), py::arg("epoch"));
    m.def("load_images", &load_images, py::arg("fd"), py::arg("ptr").noconvert(), py::arg("size").noconvert(),
          py::arg("mode").noconvert(), py::arg("height").noconvert(), py::arg("width").noconvert(),
          py::arg("boxes").noconvert(), py::arg("out"), py::arg("table"), py::arg("fill"), py::arg("threads"));
    m.def("place_images", &place_images, py::arg("pixels"), py::arg("boxes").noconvert(), py::arg("out"),
          py::arg("table"), py::arg("fill"), py::arg("threads"));
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "Compiled operations of dualfast; called through dualfast.ops.";
    m.attr("__version__") = DUALFAST_VERSION;
    register_step(m);
    register_select(m);
    register_beton(m);
}
