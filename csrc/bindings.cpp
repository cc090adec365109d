// The only file that knows Python: checks dtype, layout and size, releases the GIL, calls the logic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "beton.h"
#include "jpeg.h"
#include "levels.h"
#include "philox.h"
#include "select.h"
#include "step.h"

namespace py = pybind11;

namespace {

// ---- step -----------------------------------------------------------------------------------------------------------

// Arguments are bound with noconvert: no silent copies. bfloat16 comes as the uint16 of its bits.
template <class T>
using Dense = py::array_t<T, py::array::c_style>;

void check_size(const char* name, py::ssize_t size, py::ssize_t wanted) {
    if (size == wanted) return;
    throw py::value_error(std::string(name) + " holds " + std::to_string(size) + " values, not " +
                          std::to_string(wanted));
}

template <class T>
T* optional_data(const py::object& array, const char* name, py::ssize_t wanted) {
    if (array.is_none()) return nullptr;
    if (!Dense<T>::check_(array)) throw py::type_error(std::string(name) + " has another dtype or is not contiguous");
    auto view = py::reinterpret_borrow<Dense<T>>(array);
    check_size(name, view.size(), wanted);
    return const_cast<T*>(view.data());
}

dualfast::Line layout_of(const py::object& lines, int window, int limit) {
    if (lines.is_none()) return {dualfast::kLineWords, window, limit};
    return {static_cast<int>(py::reinterpret_borrow<py::array>(lines).shape(1)), window, limit};
}

void count(int32_t* status, const dualfast::Counts& counts) {
    if (!status) return;
    status[dualfast::kStatusDuplicates] += static_cast<int32_t>(counts.duplicates);
    status[dualfast::kStatusNonFinite] += static_cast<int32_t>(counts.non_finite);
}

void check_range(int64_t row, const char* name, const int64_t* values, const std::string& range) {
    if (row < 0) return;
    throw py::value_error(std::string(name) + "[" + std::to_string(row) + "] is " + std::to_string(values[row]) +
                          range);
}

// Addresses and sizes, all of them checked by dualfast.ops: to make arrays of eight tensors would cost as much as the
// step of a small batch. 0 is null. reduced: 1 float, the sum of the losses (mean: over the denominator), or null.
void step(uintptr_t logits, uintptr_t grad, bool bfloat16, int64_t rows, int64_t classes, int64_t logits_stride,
          int64_t grad_stride, uintptr_t targets, uintptr_t index, uintptr_t loss, uintptr_t reduced, float scale,
          bool mean, uintptr_t weight, float smoothing, int64_t ignore_index, uintptr_t lines, uintptr_t status,
          uintptr_t loss_sums, int64_t samples, int words, int window, int limit, uintptr_t seen, uintptr_t flags,
          bool by_products, int threads) {
    dualfast::Step args{};
    args.type = bfloat16 ? dualfast::Logits::kBFloat16 : dualfast::Logits::kFloat32;
    args.logits = reinterpret_cast<const void*>(logits);
    args.grad = reinterpret_cast<void*>(grad);
    args.logits_stride = logits_stride;
    args.grad_stride = grad_stride;
    args.targets = reinterpret_cast<const int64_t*>(targets);
    args.index = reinterpret_cast<const int64_t*>(index);
    args.loss = reinterpret_cast<float*>(loss);
    args.scale = scale;
    args.mean = mean;
    args.rows = rows;
    args.classes = classes;
    args.samples = samples;
    args.ignore_index = ignore_index;
    args.weight = reinterpret_cast<const float*>(weight);
    args.smoothing = smoothing;
    args.lines = reinterpret_cast<int32_t*>(lines);
    args.layout = {words, window, limit};
    args.loss_sums = reinterpret_cast<float*>(loss_sums);
    args.seen = reinterpret_cast<float*>(seen);
    args.flags = reinterpret_cast<uint8_t*>(flags);
    args.by_products = by_products;
    args.threads = threads;
    auto* state = reinterpret_cast<int32_t*>(status);
    py::gil_scoped_release release;
    const auto counts_in = [&](int64_t row) { return args.targets[row] != ignore_index; };
    const int64_t bad_target = dualfast::first_outside(args.targets, rows, classes, ignore_index, counts_in);
    const int64_t bad_index = args.lines ? dualfast::first_outside(args.index, rows, samples, 0, counts_in) : -1;
    if (bad_target >= 0 || bad_index >= 0) {
        py::gil_scoped_acquire acquire;
        check_range(bad_target, "targets", args.targets,
                    "; the logits have the classes 0 to " + std::to_string(classes - 1));
        check_range(bad_index, "index", args.index,
                    "; the score table has the samples 0 to " + std::to_string(samples - 1));
    }
    if (state && state[dualfast::kStatusPaused]) {
        if (args.flags) std::fill(args.flags, args.flags + rows, uint8_t{0});
        args.lines = nullptr;
        args.flags = nullptr;
    }
    std::vector<float> losses;
    if (!loss) {
        losses.resize(static_cast<size_t>(rows));
        args.loss = losses.data();
    }
    const dualfast::Counts counts = dualfast::step(args);
    count(state, counts);
    if (!reduced) return;
    const double total = dualfast::sum(args.loss, rows);
    *reinterpret_cast<float*>(reduced) = static_cast<float>(mean ? total / counts.denominator : total);
}

void observe(const Dense<float>& p, const Dense<float>& margin, const Dense<float>& el2n, const Dense<float>& entropy,
             const Dense<bool>& correct, const py::object& counted, const Dense<int64_t>& index,
             const py::object& lines, const py::object& status, int64_t samples, int window, int limit, int threads) {
    const py::ssize_t rows = p.size();
    for (const auto& [name, size] :
         {std::pair{"margin", margin.size()}, std::pair{"el2n", el2n.size()}, std::pair{"entropy", entropy.size()},
          std::pair{"correct", correct.size()}, std::pair{"index", index.size()}}) {
        check_size(name, size, rows);
    }
    dualfast::Observe args{};
    args.p = p.data();
    args.margin = margin.data();
    args.el2n = el2n.data();
    args.entropy = entropy.data();
    args.correct = reinterpret_cast<const uint8_t*>(correct.data());
    args.counted = reinterpret_cast<const uint8_t*>(optional_data<bool>(counted, "counted", rows));
    args.index = index.data();
    args.rows = rows;
    args.samples = samples;
    args.layout = layout_of(lines, window, limit);
    args.lines = optional_data<int32_t>(lines, "lines", samples * args.layout.words);
    args.threads = threads;
    auto* state = optional_data<int32_t>(status, "status", dualfast::kStatusWords);
    const auto counts_in = [&](int64_t row) { return !args.counted || args.counted[row]; };
    check_range(dualfast::first_outside(args.index, rows, samples, 0, counts_in), "index", args.index,
                "; the score table has the samples 0 to " + std::to_string(samples - 1));
    if (state && state[dualfast::kStatusPaused]) return;
    dualfast::Counts counts;
    {
        py::gil_scoped_release release;
        counts = dualfast::observe(args);
    }
    count(state, counts);
}

void register_step(py::module_& m) {
    m.def("step", &step);
    m.def("observe", &observe, py::arg("p").noconvert(), py::arg("margin").noconvert(), py::arg("el2n").noconvert(),
          py::arg("entropy").noconvert(), py::arg("correct").noconvert(), py::arg("counted"),
          py::arg("index").noconvert(), py::arg("lines"), py::arg("status"), py::arg("samples"), py::arg("window"),
          py::arg("limit"), py::arg("threads"));
}

// ---- select ---------------------------------------------------------------------------------------------------------

dualfast::Column column_of(const py::object& array, const char* name, py::ssize_t wanted) {
    if (Dense<float>::check_(array)) return {optional_data<float>(array, name, wanted), false};
    return {optional_data<double>(array, name, wanted), true};
}

dualfast::Race race_of(const py::object& mean, const py::object& score, const py::object& ids, int64_t first,
                       int64_t count, double a, double b, uint64_t seed, int threads) {
    return {column_of(mean, "mean", count),
            column_of(score, "score", count),
            optional_data<int64_t>(ids, "ids", count),
            first,
            count,
            a,
            b,
            seed,
            threads};
}

template <class T>
Dense<T> array_of(std::vector<T>&& values) {  // not copied
    auto* kept = new std::vector<T>(std::move(values));
    const py::capsule owner(kept, [](void* of) { delete static_cast<std::vector<T>*>(of); });
    return Dense<T>(static_cast<py::ssize_t>(kept->size()), kept->data(), owner);
}

Dense<double> race_keys(const py::object& mean, const py::object& score, const py::object& ids, int64_t first,
                        int64_t count, double a, double b, uint64_t seed, int threads, const py::object& where) {
    const dualfast::Race race = race_of(mean, score, ids, first, count, a, b, seed, threads);
    if (!where.is_none()) count = static_cast<int64_t>(py::len(where));
    const auto* at = optional_data<int64_t>(where, "where", count);
    Dense<double> keys(count);
    double* to = keys.mutable_data();
    py::gil_scoped_release release;
    dualfast::race_keys(race, at, count, to);
    return keys;
}

py::tuple sift(const py::object& mean, const py::object& score, const py::object& ids, int64_t first, int64_t count,
               double a, double b, uint64_t seed, int threads, double low, double high, const py::object& fresh) {
    const dualfast::Race race = race_of(mean, score, ids, first, count, a, b, seed, threads);
    Dense<uint8_t> bits((count + 7) / 8);
    uint8_t* to = bits.mutable_data();
    dualfast::Fresh pages{nullptr, 0};
    if (!fresh.is_none()) {
        auto ids_to_come = py::cast<Dense<int64_t>>(fresh);
        pages = {reinterpret_cast<char*>(ids_to_come.mutable_data()), static_cast<int64_t>(ids_to_come.nbytes())};
    }
    dualfast::Sifted found;
    {
        py::gil_scoped_release release;
        found = dualfast::sift(race, low, high, to, pages);
    }
    return py::make_tuple(bits, found.kept, array_of(std::move(found.open)), array_of(std::move(found.ratios)),
                          found.error, found.bad);
}

Dense<int64_t> largest(const py::object& column, int64_t k, int threads) {
    const auto count = static_cast<int64_t>(py::len(column));
    const dualfast::Column from = column_of(column, "column", count);
    std::vector<int64_t> found;
    {
        py::gil_scoped_release release;
        found = dualfast::largest(from, count, k, threads);
    }
    return array_of(std::move(found));
}

void set_bits(Dense<uint8_t>& bits, const Dense<int64_t>& where) {
    dualfast::set_bits(bits.mutable_data(), where.data(), where.size());
}

py::tuple narrow(Dense<uint8_t>& bits, const Dense<int64_t>& open, const Dense<float>& ratios, float low, float high) {
    auto [sure, doubtful] = dualfast::narrow(open.data(), ratios.data(), open.size(), low, high, bits.mutable_data());
    return py::make_tuple(sure, array_of(std::move(doubtful)));
}

void positions(const Dense<uint8_t>& bits, Dense<int64_t>& out, int threads) {
    int64_t* to = out.mutable_data();
    const uint8_t* from = bits.data();
    const int64_t bytes = bits.size(), n = out.size();
    py::gil_scoped_release release;
    dualfast::positions(from, bytes, n, to, threads);
}

void register_select(py::module_& m) {
    m.def("set_level", [](int level) { dualfast::level() = std::max(0, std::min(level, dualfast::highest_level())); });
    m.def("race_keys", &race_keys, py::arg("mean"), py::arg("score"), py::arg("ids"), py::arg("first"),
          py::arg("count"), py::arg("a"), py::arg("b"), py::arg("seed"), py::arg("threads"), py::arg("where"));
    m.def("sift", &sift, py::arg("mean"), py::arg("score"), py::arg("ids"), py::arg("first"), py::arg("count"),
          py::arg("a"), py::arg("b"), py::arg("seed"), py::arg("threads"), py::arg("low"), py::arg("high"),
          py::arg("fresh").noconvert());
    m.def("largest", &largest, py::arg("column"), py::arg("k"), py::arg("threads"));
    m.def("set_bits", &set_bits, py::arg("bits").noconvert(), py::arg("where").noconvert());
    m.def("narrow", &narrow, py::arg("bits").noconvert(), py::arg("open").noconvert(), py::arg("ratios").noconvert(),
          py::arg("low"), py::arg("high"));
    m.def("positions", &positions, py::arg("bits").noconvert(), py::arg("out").noconvert(), py::arg("threads"));
}

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
    m.attr("jpeg_library") = dualfast::jpeg_library();
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
