#include <string>
#include <vector>

#include "arguments.h"
#include "images.h"
#include "jpeg.h"

namespace {

// out (n, height, width, 3) with elements of 1, 2 or 4 bytes, table (3, 256) and fill (3,) with elements of that size.
dualfast::Output output_of(py::array& out, const py::array& table, const py::array& fill, py::ssize_t n) {
    const py::ssize_t element = out.itemsize();
    if (element != 1 && element != 2 && element != 4) {
        throw py::type_error("out has elements of " + std::to_string(element) + " bytes; they must have 1, 2 or 4");
    }
    if (out.ndim() != 4 || out.shape(0) != n || out.shape(3) != 3 || !(out.flags() & py::array::c_style)) {
        throw py::value_error("out must be a C-contiguous (" + std::to_string(n) + ", height, width, 3)");
    }
    for (const py::array& lookup : {table, fill}) {
        if (lookup.itemsize() != element || !(lookup.flags() & py::array::c_style)) {
            throw py::type_error("table and fill must be C-contiguous and have out's element size");
        }
    }
    check_size("table", table.size(), 768);
    check_size("fill", fill.size(), 3);
    return {out.mutable_data(),
            static_cast<int32_t>(out.shape(1)),
            static_cast<int32_t>(out.shape(2)),
            static_cast<int32_t>(element),
            table.data(),
            fill.data()};
}

Dense<int32_t> load_images(int fd, const Dense<uint64_t>& ptr, const Dense<uint64_t>& size, const Dense<uint8_t>& mode,
                           const Dense<uint16_t>& height, const Dense<uint16_t>& width, const Dense<int32_t>& boxes,
                           py::array out, const py::array& table, const py::array& fill, int64_t max_bytes,
                           int max_scans, int threads) {
    const py::ssize_t n = ptr.size();
    check_size("size", size.size(), n);
    check_size("mode", mode.size(), n);
    check_size("height", height.size(), n);
    check_size("width", width.size(), n);
    check_size("boxes", boxes.size(), 5 * n);
    const dualfast::Output output = output_of(out, table, fill, n);
    const dualfast::Samples samples{static_cast<size_t>(n),
                                    ptr.data(),
                                    size.data(),
                                    mode.data(),
                                    height.data(),
                                    width.data(),
                                    reinterpret_cast<const dualfast::Box*>(boxes.data())};
    for (py::ssize_t i = 0; i < n; ++i) {
        const uint64_t bytes = uint64_t{3} * samples.height[i] * samples.width[i];
        if (samples.mode[i] == dualfast::kRaw && samples.size[i] != bytes) {
            throw py::value_error("size[" + std::to_string(i) + "] is " + std::to_string(samples.size[i]) +
                                  "; it must be height x width x 3, " + std::to_string(bytes));
        }
    }
    Dense<int32_t> status(n);
    int32_t* codes = status.mutable_data();
    py::gil_scoped_release release;
    dualfast::load_images(fd, samples, output, {max_bytes, max_scans}, threads, codes);
    return status;
}

void place_images(const py::list& pixels, const Dense<int32_t>& boxes, py::array out, const py::array& table,
                  const py::array& fill, int threads) {
    const auto n = static_cast<py::ssize_t>(pixels.size());
    check_size("boxes", boxes.size(), 5 * n);
    const dualfast::Output output = output_of(out, table, fill, n);
    std::vector<const uint8_t*> data(pixels.size(), nullptr);
    std::vector<uint16_t> height(pixels.size(), 1), width(pixels.size(), 1);
    for (size_t i = 0; i < pixels.size(); ++i) {
        if (pixels[i].is_none()) continue;
        const auto image = py::cast<Dense<uint8_t>>(pixels[i]);
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

}  // namespace

void register_images(py::module_& m) {
    m.attr("jpeg_library") = dualfast::jpeg_library();
    m.def("load_images", &load_images, py::arg("fd"), py::arg("ptr").noconvert(), py::arg("size").noconvert(),
          py::arg("mode").noconvert(), py::arg("height").noconvert(), py::arg("width").noconvert(),
          py::arg("boxes").noconvert(), py::arg("out"), py::arg("table"), py::arg("fill"), py::arg("max_bytes"),
          py::arg("max_scans"), py::arg("threads"));
    m.def("place_images", &place_images, py::arg("pixels"), py::arg("boxes").noconvert(), py::arg("out"),
          py::arg("table"), py::arg("fill"), py::arg("threads"));
}
