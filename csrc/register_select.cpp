#include <pybind11/stl.h>

#include <optional>
#include <utility>
#include <vector>

#include "arguments.h"
#include "select.h"

namespace {

dualfast::Column column_of(const py::object& array, const char* name, py::ssize_t count) {
    if (Dense<float>::check_(array)) return {optional_data<float>(array, name, count), false};
    return {optional_data<double>(array, name, count), true};
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

// The vector as an array that owns it, without a copy.
template <class T>
Dense<T> array_of(std::vector<T>&& values) {
    auto* moved = new std::vector<T>(std::move(values));
    const py::capsule owner(moved, [](void* vector) { delete static_cast<std::vector<T>*>(vector); });
    return Dense<T>(static_cast<py::ssize_t>(moved->size()), moved->data(), owner);
}

Dense<double> race_keys(const py::object& mean, const py::object& score, const py::object& ids, int64_t first,
                        int64_t count, double a, double b, uint64_t seed, int threads, const py::object& positions) {
    const dualfast::Race race = race_of(mean, score, ids, first, count, a, b, seed, threads);
    if (!positions.is_none()) count = static_cast<int64_t>(py::len(positions));
    const auto* at = optional_data<int64_t>(positions, "positions", count);
    Dense<double> keys(count);
    double* out = keys.mutable_data();
    py::gil_scoped_release release;
    dualfast::race_keys(race, at, count, out);
    return keys;
}

py::tuple classify(const py::object& mean, const py::object& score, const py::object& ids, int64_t first, int64_t count,
                   double a, double b, uint64_t seed, int threads, double low, double high,
                   std::optional<Dense<int64_t>> prefault_buffer) {
    const dualfast::Race race = race_of(mean, score, ids, first, count, a, b, seed, threads);
    Dense<uint8_t> bits((count + 7) / 8);
    uint8_t* bytes = bits.mutable_data();
    dualfast::PrefaultBuffer pages{nullptr, 0};
    if (prefault_buffer) pages = {reinterpret_cast<char*>(prefault_buffer->mutable_data()), prefault_buffer->nbytes()};
    dualfast::Classified out;
    {
        py::gil_scoped_release release;
        out = dualfast::classify(race, low, high, bytes, pages);
    }
    return py::make_tuple(bits, out.n_below, array_of(std::move(out.undecided)), array_of(std::move(out.ratios)),
                          out.error, out.first_invalid);
}

py::tuple settle_by_ratio(Dense<uint8_t>& bits, const Dense<int64_t>& undecided, const Dense<float>& ratios, float low,
                          float high) {
    check_size("ratios", ratios.size(), undecided.size());
    auto [n_below, remaining] =
        dualfast::settle_by_ratio(undecided.data(), ratios.data(), undecided.size(), low, high, bits.mutable_data());
    return py::make_tuple(n_below, array_of(std::move(remaining)));
}

Dense<int64_t> largest(const py::object& column, int64_t k, int threads) {
    const auto count = static_cast<int64_t>(py::len(column));
    const dualfast::Column values = column_of(column, "column", count);
    std::vector<int64_t> positions;
    {
        py::gil_scoped_release release;
        positions = dualfast::largest(values, count, k, threads);
    }
    return array_of(std::move(positions));
}

void set_bits(Dense<uint8_t>& bits, const Dense<int64_t>& positions) {
    dualfast::set_bits(bits.mutable_data(), positions.data(), positions.size());
}

void positions(const Dense<uint8_t>& bits, Dense<int64_t>& out, int threads) {
    int64_t* to = out.mutable_data();
    const uint8_t* bytes = bits.data();
    const int64_t n_bytes = bits.size(), n = out.size();
    py::gil_scoped_release release;
    dualfast::positions(bytes, n_bytes, n, to, threads);
}

}  // namespace

void register_select(py::module_& m) {
    m.def("race_keys", &race_keys, py::arg("mean"), py::arg("score"), py::arg("ids"), py::arg("first"),
          py::arg("count"), py::arg("a"), py::arg("b"), py::arg("seed"), py::arg("threads"), py::arg("positions"));
    m.def("classify", &classify, py::arg("mean"), py::arg("score"), py::arg("ids"), py::arg("first"), py::arg("count"),
          py::arg("a"), py::arg("b"), py::arg("seed"), py::arg("threads"), py::arg("low"), py::arg("high"),
          py::arg("prefault_buffer").noconvert());
    m.def("settle_by_ratio", &settle_by_ratio, py::arg("bits").noconvert(), py::arg("undecided").noconvert(),
          py::arg("ratios").noconvert(), py::arg("low"), py::arg("high"));
    m.def("largest", &largest, py::arg("column"), py::arg("k"), py::arg("threads"));
    m.def("set_bits", &set_bits, py::arg("bits").noconvert(), py::arg("positions").noconvert());
    m.def("positions", &positions, py::arg("bits").noconvert(), py::arg("out").noconvert(), py::arg("threads"));
}
