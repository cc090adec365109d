// Draws within groups: how many samples and which keys each group has, and the smallest keys of each.
#include <algorithm>
#include <limits>
#include <utility>

#include "select_approx.h"

namespace dualfast {
namespace {

#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")  // approximations, so their bits may differ between processors

// Intervals of the ratio of wait and weight, equally wide in the bits of a float: nearly its logarithm.
struct Bins {
    float scale, offset;  // of the bits, so that the integer part is the interval
    int32_t last;

    Bins(float low, float high, int64_t count) : last(static_cast<int32_t>(count) - 1) {
        const auto first = static_cast<float>(static_cast<int32_t>(float_to_bits(low)));
        const auto end = static_cast<float>(static_cast<int32_t>(float_to_bits(high)));
        scale = static_cast<float>(count) / std::max(end - first, 1.0f);
        offset = -first * scale;
    }
    INLINE int32_t of(float ratio) const {
        const float at = static_cast<float>(static_cast<int32_t>(float_to_bits(ratio))) * scale + offset;
        return static_cast<int32_t>(std::min(std::max(at, 0.0f), static_cast<float>(last)));
    }
    float edge(int64_t bin) const {
        return bits_to_float(static_cast<uint32_t>((static_cast<float>(bin) - offset) / scale));
    }
};

INLINE void count_block_at_level(const Race& race, const Groups& groups, const Scale& scale, const Bins& bins,
                                 int64_t first, int n, uint32_t* counts) {
    Block block;
    uint32_t rows[kBlock];
    int32_t bin[kBlock];
    fill_block(race, scale, first, n, block);
    rows_of(groups, first, n, rows);
    for (int i = 0; i < n; ++i) bin[i] = bins.of(block.waits[i] / block.weights[i]);
    for (int i = 0; i < n; ++i) ++counts[int64_t{rows[i]} * (bins.last + 1) + bin[i]];
}
AT_LEVELS(void, count_block,
          (const Race& race, const Groups& groups, const Scale& scale, const Bins& bins, int64_t first, int n,
           uint32_t* counts),
          (race, groups, scale, bins, first, n, counts))
#pragma GCC pop_options

using Entry = std::pair<double, int64_t>;  // key, position: ties go to the lower position

// Sets the bits of the `missing` smallest entries; returns as settle_groups does.
double settle_group(Entry* begin, Entry* end, int64_t missing, double low, double high, uint8_t* bits) {
    constexpr double kUnsettled = std::numeric_limits<double>::quiet_NaN();
    if (missing < 0 || missing > end - begin) return kUnsettled;
    if (missing == 0) {
        const bool none_below = std::all_of(begin, end, [=](const Entry& entry) { return entry.first >= low; });
        return none_below ? -std::numeric_limits<double>::infinity() : kUnsettled;
    }
    Entry* nth = begin + missing - 1;
    std::nth_element(begin, nth, end);
    if (nth->first < low || nth->first > high) return kUnsettled;
    for (const Entry* entry = begin; entry <= nth; ++entry) set_bits(bits, &entry->second, 1);
    return nth->first;
}

}  // namespace

double key_histogram(const Race& race, const Groups& groups, double low, double high, double origin, int64_t bins,
                     int64_t* counts, double* edges) {
    const Scale scale(race, origin, kReach);
    const Bins intervals(scale.factor(low, 0), scale.factor(high, 0), bins);
    const int64_t parts = parts_of(race.count, race.threads);
    const std::vector<uint32_t> zeros(static_cast<size_t>((groups.count + 1) * bins));
    std::vector<std::vector<uint32_t>> by_thread(threads_of(parts, race.threads), zeros);
    for_blocks(race.count, parts, by_thread, [&](int64_t, int64_t first, int n, std::vector<uint32_t>& own) {
        prefetch(groups, first + 2 * n, race.count);
        count_block(race, groups, scale, intervals, first, n, own.data());
    });
    add_up(by_thread, groups.count * bins, counts);
    for (int64_t bin = 1; bin < bins; ++bin) edges[bin] = origin + std::log(static_cast<double>(intervals.edge(bin)));
    edges[0] = -std::numeric_limits<double>::infinity();
    edges[bins] = std::numeric_limits<double>::infinity();
    return scale.slack * std::log(2.0) + 1e-4;  // and what the edges are rounded by
}

void count_groups(const Groups& groups, int64_t count, int threads, int64_t* sizes) {
    const int64_t parts = parts_of(count, threads);
    const std::vector<uint32_t> zeros(static_cast<size_t>(groups.count) + 1);
    std::vector<std::vector<uint32_t>> by_thread(threads_of(parts, threads), zeros);
    for_blocks(count, parts, by_thread, [&](int64_t, int64_t first, int n, std::vector<uint32_t>& own) {
        uint32_t rows[kBlock];
        rows_of(groups, first, n, rows);
        for (int i = 0; i < n; ++i) ++own[rows[i]];
    });
    add_up(by_thread, groups.count, sizes);
}

void settle_groups(const Groups& groups, const int64_t* undecided, const double* keys, int64_t count,
                   const int64_t* missing, const double* low, const double* high, uint8_t* bits, double* last) {
    // The undecided samples of each group side by side: a counting sort.
    std::vector<uint32_t> rows(static_cast<size_t>(count));
    std::vector<int64_t> ends(static_cast<size_t>(groups.count) + 2);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t at = undecided[i] / 8 * 8;
        uint32_t eight[8];
        rows_of(groups, at, static_cast<int>(undecided[i] - at) + 1, eight);
        rows[static_cast<size_t>(i)] = eight[undecided[i] - at];
        ++ends[eight[undecided[i] - at] + 1];
    }
    for (size_t group = 1; group < ends.size(); ++group) ends[group] += ends[group - 1];
    std::vector<Entry> sorted(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        const int64_t to = ends[rows[static_cast<size_t>(i)]]++;
        sorted[static_cast<size_t>(to)] = {keys[i], undecided[i]};
    }
    Entry* begin = sorted.data();
    for (int64_t group = 0; group < groups.count; ++group) {
        Entry* end = sorted.data() + ends[static_cast<size_t>(group)];
        last[group] = settle_group(begin, end, missing[group], low[group], high[group], bits);
        begin = end;
    }
}

}  // namespace dualfast
