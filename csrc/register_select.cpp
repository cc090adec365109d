#include <pybind11/stl.h>

#include <optional>
#include <utility>
#include <vector>

#include "select_arguments.h"

namespace {

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
                   double a, double b, uint64_t seed, int threads, const py::object& numbers, const py::object& allowed,
                   const Dense<double>& low, const Dense<double>& high, double origin,
                   std::optional<Dense<int64_t>> prefault_buffer) {
    const dualfast::Race race = race_of(mean, score, ids, first, count, a, b, seed, threads);
    const dualfast::Groups groups = groups_of(numbers, low.size(), allowed, count);
    check_size("high", high.size(), low.size());
    Dense<uint8_t> bits((count + 7) / 8);
    uint8_t* bytes = bits.mutable_data();
    dualfast::PrefaultBuffer pages{nullptr, 0};
    if (prefault_buffer) pages = {reinterpret_cast<char*>(prefault_buffer->mutable_data()), prefault_buffer->nbytes()};
    dualfast::Classified out;
    {
        py::gil_scoped_release release;
        out = dualfast::classify(race, groups, low.data(), high.data(), origin, bytes, pages);
    }
    return py::make_tuple(bits, array_of(std::move(out.n_below)), array_of(std::move(out.undecided)),
                          array_of(std::move(out.ratios)), out.error, out.first_invalid);
}

py::tuple key_histogram(const py::object& mean, const py::object& score, const py::object& ids, int64_t first,
                        int64_t count, double a, double b, uint64_t seed, int threads, const py::object& numbers,
                        const py::object& allowed, int64_t n_groups, double low, double high, double origin,
                        int64_t bins) {
    const dualfast::Race race = race_of(mean, score, ids, first, count, a, b, seed, threads);
    const dualfast::Groups groups = groups_of(numbers, n_groups, allowed, count);
    Dense<int64_t> counts({n_groups, bins});
    Dense<double> edges(bins + 1);
    int64_t* to_counts = counts.mutable_data();
    double* to_edges = edges.mutable_data();
    double error;
    {
        py::gil_scoped_release release;
        error = dualfast::key_histogram(race, groups, low, high, origin, bins, to_counts, to_edges);
    }
    return py::make_tuple(counts, edges, error);
}

Dense<double> settle_groups(Dense<uint8_t>& bits, const py::object& numbers, const py::object& allowed, int64_t count,
                            const Dense<int64_t>& undecided, const Dense<double>& keys, const Dense<int64_t>& missing,
                            const Dense<double>& low, const Dense<double>& high) {
    const dualfast::Groups groups = groups_of(numbers, missing.size(), allowed, count);
    check_size("keys", keys.size(), undecided.size());
    check_size("low", low.size(), missing.size());
    check_size("high", high.size(), missing.size());
    Dense<double> last(missing.size());
    dualfast::settle_groups(groups, undecided.data(), keys.data(), undecided.size(), missing.data(), low.data(),
                            high.data(), bits.mutable_data(), last.mutable_data());
    return last;
}

Dense<int64_t> count_groups(const py::object& numbers, const py::object& allowed, int64_t count, int64_t n_groups,
                            int threads) {
    const dualfast::Groups groups = groups_of(numbers, n_groups, allowed, count);
    Dense<int64_t> sizes(n_groups);
    int64_t* out = sizes.mutable_data();
    {
        py::gil_scoped_release release;
        dualfast::count_groups(groups, count, threads, out);
    }
    return sizes;
}

py::tuple settle_by_ratio(Dense<uint8_t>& bits, const Dense<int64_t>& undecided, const Dense<float>& ratios, float low,
                          float high) {
    check_size("ratios", ratios.size(), undecided.size());
    auto [n_below, remaining] =
        dualfast::settle_by_ratio(undecided.data(), ratios.data(), undecided.size(), low, high, bits.mutable_data());
    return py::make_tuple(n_below, array_of(std::move(remaining)));
}

py::tuple outside(const py::object& column, double low, double high, int threads, std::optional<Dense<uint8_t>> bits) {
    const auto count = static_cast<int64_t>(py::len(column));
    const dualfast::Column values = column_of(column, "column", count);
    if (bits) check_size("bits", bits->size(), (count + 7) / 8);
    uint8_t* bytes = bits ? bits->mutable_data() : nullptr;
    dualfast::Outside found;
    {
        py::gil_scoped_release release;
        found = dualfast::outside(values, count, low, high, threads, bytes);
    }
    return py::make_tuple(found.count, found.first);
}

py::tuple number_labels(const py::object& labels, int threads) {
    const auto count = static_cast<int64_t>(py::len(labels));
    const bool is_narrow = Dense<int32_t>::check_(labels);
    const auto* narrow = is_narrow ? optional_data<int32_t>(labels, "labels", count) : nullptr;
    const auto* wide = is_narrow ? nullptr : optional_data<int64_t>(labels, "labels", count);
    Dense<uint16_t> numbers(count);
    uint16_t* out = numbers.mutable_data();
    std::vector<int64_t> sizes;
    {
        py::gil_scoped_release release;
        sizes = dualfast::number_labels(narrow, wide, count, threads, out);
    }
    return py::make_tuple(numbers, array_of(std::move(sizes)));
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

int64_t count_bits(const Dense<uint8_t>& bits) { return dualfast::count_bits(bits.data(), bits.size()); }

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
          py::arg("a"), py::arg("b"), py::arg("seed"), py::arg("threads"), py::arg("numbers"), py::arg("allowed"),
          py::arg("low"), py::arg("high"), py::arg("origin"), py::arg("prefault_buffer").noconvert());
    m.def("key_histogram", &key_histogram, py::arg("mean"), py::arg("score"), py::arg("ids"), py::arg("first"),
          py::arg("count"), py::arg("a"), py::arg("b"), py::arg("seed"), py::arg("threads"), py::arg("numbers"),
          py::arg("allowed"), py::arg("n_groups"), py::arg("low"), py::arg("high"), py::arg("origin"), py::arg("bins"));
    m.def("settle_groups", &settle_groups, py::arg("bits").noconvert(), py::arg("numbers"), py::arg("allowed"),
          py::arg("count"), py::arg("undecided").noconvert(), py::arg("keys").noconvert(),
          py::arg("missing").noconvert(), py::arg("low").noconvert(), py::arg("high").noconvert());
    m.def("count_groups", &count_groups, py::arg("numbers"), py::arg("allowed"), py::arg("count"), py::arg("n_groups"),
          py::arg("threads"));
    m.def("settle_by_ratio", &settle_by_ratio, py::arg("bits").noconvert(), py::arg("undecided").noconvert(),
          py::arg("ratios").noconvert(), py::arg("low"), py::arg("high"));
    m.def("outside", &outside, py::arg("column"), py::arg("low"), py::arg("high"), py::arg("threads"),
          py::arg("bits").noconvert());
    m.def("number_labels", &number_labels, py::arg("labels"), py::arg("threads"));
    m.def("largest", &largest, py::arg("column"), py::arg("k"), py::arg("threads"));
    m.def("count_bits", &count_bits, py::arg("bits").noconvert());
    m.def("set_bits", &set_bits, py::arg("bits").noconvert(), py::arg("positions").noconvert());
    m.def("positions", &positions, py::arg("bits").noconvert(), py::arg("out").noconvert(), py::arg("threads"));
}
