#include <pybind11/stl.h>

#include <tuple>
#include <utility>
#include <vector>

#include "select_arguments.h"

namespace {

using Levels = std::vector<std::tuple<int, int, Dense<int32_t>>>;  // shift, bits, child

std::vector<dualfast::DigitLevel> levels_of(const Levels& levels) {
    std::vector<dualfast::DigitLevel> out;
    for (const auto& [shift, bits, child] : levels) out.push_back({shift, bits, child.data()});
    return out;
}

dualfast::Ranking ranking_of(const py::object& column, bool descending, uint64_t base, const py::object& numbers,
                             int64_t n_groups, const py::object& allowed, int threads) {
    const auto count = static_cast<int64_t>(py::len(column));
    return {column_of(column, "column", count),           count,  descending, base,
            groups_of(numbers, n_groups, allowed, count), threads};
}

dualfast::Cuts cuts_of(const Dense<uint64_t>& keys, const Dense<int64_t>& ties, int64_t n_groups) {
    check_size("ties", ties.size(), keys.size());
    check_size("keys", keys.size() % n_groups, 0);
    return {keys.size() / n_groups, keys.data(), ties.data()};
}

Dense<int64_t> digit_histogram(const py::object& column, bool descending, uint64_t base, const py::object& numbers,
                               int64_t n_groups, const py::object& allowed, int threads, const Levels& levels,
                               int shift, int bits, int64_t nodes) {
    const dualfast::Ranking ranking = ranking_of(column, descending, base, numbers, n_groups, allowed, threads);
    const std::vector<dualfast::DigitLevel> digits = levels_of(levels);
    Dense<int64_t> counts(nodes << bits);
    int64_t* out = counts.mutable_data();
    {
        py::gil_scoped_release release;
        dualfast::digit_histogram(ranking, digits, shift, bits, nodes, out);
    }
    return counts;
}

py::tuple at_nodes(const py::object& column, bool descending, uint64_t base, const py::object& numbers,
                   int64_t n_groups, const py::object& allowed, int threads, const Levels& levels) {
    const dualfast::Ranking ranking = ranking_of(column, descending, base, numbers, n_groups, allowed, threads);
    const std::vector<dualfast::DigitLevel> digits = levels_of(levels);
    dualfast::AtNodes found;
    {
        py::gil_scoped_release release;
        found = dualfast::at_nodes(ranking, digits);
    }
    return py::make_tuple(array_of(std::move(found.positions)), array_of(std::move(found.nodes)));
}

Dense<uint8_t> mark_below(const py::object& column, bool descending, uint64_t base, const py::object& numbers,
                          int64_t n_groups, const py::object& allowed, int threads, const Dense<uint64_t>& keys,
                          const Dense<int64_t>& ties) {
    const dualfast::Ranking ranking = ranking_of(column, descending, base, numbers, n_groups, allowed, threads);
    const dualfast::Cuts cuts = cuts_of(keys, ties, n_groups);
    Dense<uint8_t> bits((ranking.count + 7) / 8);
    uint8_t* out = bits.mutable_data();
    {
        py::gil_scoped_release release;
        dualfast::mark_below(ranking, cuts, out);
    }
    return bits;
}

// strata: of each group; low and width: of each group's bands, or None.
py::object stratify(const py::object& column, bool descending, uint64_t base, const py::object& numbers,
                    int64_t n_groups, const py::object& allowed, int threads, const Dense<uint64_t>& keys,
                    const Dense<int64_t>& ties, int64_t strata, const py::object& low, const py::object& width) {
    const dualfast::Ranking ranking = ranking_of(column, descending, base, numbers, n_groups, allowed, threads);
    const dualfast::Cuts cuts = cuts_of(keys, ties, n_groups);
    const dualfast::Bands bands{strata, optional_data<double>(low, "low", n_groups),
                                optional_data<double>(width, "width", n_groups)};
    if (!bands.low) check_size("keys", cuts.per_group + 1, strata);
    const auto run = [&](uint16_t* narrow, int32_t* wide) {
        py::gil_scoped_release release;
        dualfast::stratify(ranking, cuts, bands.low ? &bands : nullptr, narrow, wide);
    };
    if (n_groups * strata < 65536) {
        Dense<uint16_t> out(ranking.count);
        run(out.mutable_data(), nullptr);
        return out;
    }
    Dense<int32_t> out(ranking.count);
    run(nullptr, out.mutable_data());
    return out;
}

py::tuple extents(const py::object& column, bool descending, uint64_t base, const py::object& numbers, int64_t n_groups,
                  const py::object& allowed, int threads, const Dense<uint64_t>& least) {
    const dualfast::Ranking ranking = ranking_of(column, descending, base, numbers, n_groups, allowed, threads);
    check_size("least", least.size(), n_groups);
    Dense<uint64_t> low(n_groups), high(n_groups);
    uint64_t *to_low = low.mutable_data(), *to_high = high.mutable_data();
    {
        py::gil_scoped_release release;
        dualfast::extents(ranking, least.data(), to_low, to_high);
    }
    return py::make_tuple(low, high);
}

}  // namespace

#define RANKING                                                                                         \
    py::arg("column"), py::arg("descending"), py::arg("base"), py::arg("numbers"), py::arg("n_groups"), \
        py::arg("allowed"), py::arg("threads")

void register_ranks(py::module_& m) {
    m.def("digit_histogram", &digit_histogram, RANKING, py::arg("levels"), py::arg("shift"), py::arg("bits"),
          py::arg("nodes"));
    m.def("at_nodes", &at_nodes, RANKING, py::arg("levels"));
    m.def("mark_below", &mark_below, RANKING, py::arg("keys").noconvert(), py::arg("ties").noconvert());
    m.def("stratify", &stratify, RANKING, py::arg("keys").noconvert(), py::arg("ties").noconvert(), py::arg("strata"),
          py::arg("low"), py::arg("width"));
    m.def("extents", &extents, RANKING, py::arg("least").noconvert());
}
