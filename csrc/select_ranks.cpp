// Order statistics of a column within groups, exact and without sorting: values as integers of the same order, found
// digit by digit from histograms; and the samples on either side of them.
#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "select_block.h"

namespace dualfast {
namespace {

INLINE uint64_t ordered(float value) {
    uint32_t bits;
    value += 0.0f;  // both zeros are equal
    std::memcpy(&bits, &value, 4);
    return bits ^ (bits >> 31 ? 0xFFFFFFFFu : 0x80000000u);
}
INLINE uint64_t ordered(double value) {
    uint64_t bits;
    value += 0.0;
    std::memcpy(&bits, &value, 8);
    return bits ^ (bits >> 63 ? ~uint64_t{0} : uint64_t{1} << 63);
}

INLINE void order_keys_of_at_level(const Ranking& ranking, int64_t first, int n, uint64_t* keys) {
    const uint64_t flip = !ranking.descending ? 0 : ranking.column.is_double ? ~uint64_t{0} : 0xFFFFFFFFu;
    const uint64_t base = ranking.base;
    WITH_VALUES(ranking.column, first, for (int i = 0; i < n; ++i) keys[i] = (ordered(values[i]) ^ flip) - base);
}
AT_LEVELS(void, order_keys_of, (const Ranking& ranking, int64_t first, int n, uint64_t* keys),
          (ranking, first, n, keys))

// The integers of a block and the groups of its samples.
struct Keyed {
    uint64_t keys[kBlock];
    uint32_t rows[kBlock];

    Keyed(const Ranking& ranking, int64_t first, int n) {
        prefetch(ranking.column, first + 4 * kBlock, ranking.count);
        prefetch(ranking.groups, first + 4 * kBlock, ranking.count);
        order_keys_of(ranking, first, n, keys);
        rows_of(ranking.groups, first, n, rows);
    }
};

// The node of the last level that a sample comes to, or -1 where the search does not need it.
INLINE int64_t node_of(const std::vector<DigitLevel>& levels, int64_t group, uint64_t key) {
    int64_t node = group;
    for (const DigitLevel& level : levels) {
        const auto digit = static_cast<int64_t>(key >> level.shift & ((uint64_t{1} << level.bits) - 1));
        node = level.child[node << level.bits | digit];
        if (node < 0) break;
    }
    return node;
}

// counts[i]: how many of its group's cuts have a smaller integer than sample i, or -1 for a sample in no group. Returns
// whether a sample has the integer of a cut.
INLINE bool count_smaller_at_level(const Cuts& cuts, uint32_t none, const uint64_t* keys, const uint32_t* rows, int n,
                                   int32_t* counts) {
    const auto k = static_cast<uint32_t>(cuts.per_group);
    uint32_t begin[kBlock];
    for (int i = 0; i < n; ++i) begin[i] = rows[i] == none ? 0 : rows[i] * k, counts[i] = 0;
    for (uint32_t left = k; left > 0;) {  // a step of all searches at a time, as each waits for its own
        const uint32_t half = (left + 1) / 2;
        for (int i = 0; i < n; ++i) {
            counts[i] += cuts.keys[begin[i] + static_cast<uint32_t>(counts[i]) + half - 1] < keys[i]
                             ? static_cast<int32_t>(half)
                             : 0;
        }
        left -= half;
    }
    bool equal = false;
    for (int i = 0; k > 0 && i < n; ++i)
        equal |= cuts.keys[begin[i] + std::min(static_cast<uint32_t>(counts[i]), k - 1)] == keys[i];
    for (int i = 0; i < n; ++i) counts[i] = rows[i] == none ? -1 : counts[i];
    return equal;
}
AT_LEVELS(bool, count_smaller,
          (const Cuts& cuts, uint32_t none, const uint64_t* keys, const uint32_t* rows, int n, int32_t* counts),
          (cuts, none, keys, rows, n, counts))

// Counts, from cut `at` on, the cuts with this integer that at most `before` samples with it are below.
int32_t pass_cuts(const Cuts& cuts, uint32_t row, uint64_t key, int32_t at, int64_t before) {
    const int64_t begin = row * cuts.per_group;
    while (at < cuts.per_group && cuts.keys[begin + at] == key && cuts.ties[begin + at] <= before) ++at;
    return at;
}

// Calls write(first, n, groups, at) for every block, where at[i] is the number of the group's cuts that are not above
// sample i, -1 for a sample in no group. A sample with the value of a cut which divides the samples of that value is
// written as in no group, and again later, by itself: in order of position.
template <class Write>
void place(const Ranking& ranking, const Cuts& cuts, const Write& write) {
    const int64_t k = cuts.per_group, parts = parts_of(ranking.count, ranking.threads);
    const auto none = static_cast<uint32_t>(ranking.groups.count);
    std::vector<std::vector<uint32_t>> tied(static_cast<size_t>(parts));  // positions from the part's first on
    for_blocks(ranking.count, parts, ranking.threads, [&](int64_t part, int64_t first, int n) {
        const Keyed block(ranking, first, n);
        int32_t at[kBlock];
        const bool equal = count_smaller(cuts, none, block.keys, block.rows, n, at);
        for (int i = 0; equal && i < n; ++i) {
            if (at[i] < 0) continue;
            at[i] = pass_cuts(cuts, block.rows[i], block.keys[i], at[i], 0);
            if (at[i] == k || cuts.keys[block.rows[i] * k + at[i]] != block.keys[i]) continue;
            tied[static_cast<size_t>(part)].push_back(
                static_cast<uint32_t>(first + i - begin_of(ranking.count, parts, part)));
            at[i] = -1;
        }
        write(first, n, block.rows, at);
    });
    std::vector<int64_t> seen(cuts.keys ? static_cast<size_t>(ranking.groups.count * k) : 0);  // by the first such cut
    for (int64_t part = 0; part < parts; ++part) {
        for (const uint32_t offset : tied[static_cast<size_t>(part)]) {
            const int64_t position = begin_of(ranking.count, parts, part) + offset, within = position % 8;
            const Keyed eight(ranking, position - within, static_cast<int>(within) + 1);
            const uint32_t row = eight.rows[within];
            int32_t at;
            count_smaller(cuts, none, eight.keys + within, &row, 1, &at);
            at = pass_cuts(cuts, row, eight.keys[within], at, 0);
            at = pass_cuts(cuts, row, eight.keys[within], at, seen[static_cast<size_t>(row * k + at)]++);
            write(position, 1, &row, &at);
        }
    }
}

// Which of a group's bands of equal width, computed in the column's own type.
INLINE int64_t band_of(const Column& column, const Bands& bands, int64_t i, uint32_t group) {
    WITH_VALUES(column, i, {
        using T = std::decay_t<decltype(*values)>;
        const T at = (*values - static_cast<T>(bands.low[group])) / static_cast<T>(bands.width[group]);
        return at < static_cast<T>(bands.count) ? static_cast<int64_t>(at) : bands.count - 1;
    });
}

template <class Number>
void place_numbers(const Ranking& ranking, const Cuts& cuts, const Bands* bands, Number* numbers) {
    constexpr auto kNone = std::numeric_limits<Number>::max();
    const int64_t strata = cuts.per_group + 1;
    place(ranking, cuts, [=](int64_t first, int n, const uint32_t* groups, const int32_t* at) {
        for (int i = 0; !bands && i < n; ++i) {
            numbers[first + i] = at[i] < 0 ? kNone : static_cast<Number>(groups[i] * strata + at[i]);
        }
        for (int i = 0; bands && i < n; ++i) {
            const int64_t band = at[i] <= 0 ? 0 : band_of(ranking.column, *bands, first + i, groups[i]);
            numbers[first + i] = at[i] <= 0 ? kNone : static_cast<Number>(groups[i] * bands->count + band);
        }
    });
}

}  // namespace

void digit_histogram(const Ranking& ranking, const std::vector<DigitLevel>& levels, int shift, int bits, int64_t nodes,
                     int64_t* counts) {
    const int64_t parts = parts_of(ranking.count, ranking.threads), slots = nodes << bits;
    const std::vector<uint32_t> zeros(static_cast<size_t>(slots));
    std::vector<std::vector<uint32_t>> by_thread(threads_of(parts, ranking.threads), zeros);
    for_blocks(ranking.count, parts, by_thread, [&](int64_t, int64_t first, int n, std::vector<uint32_t>& own) {
        const Keyed block(ranking, first, n);
        for (int i = 0; i < n; ++i) {
            if (block.rows[i] == ranking.groups.count) continue;
            const int64_t node = node_of(levels, block.rows[i], block.keys[i]);
            const auto digit = static_cast<int64_t>(block.keys[i] >> shift & ((uint64_t{1} << bits) - 1));
            if (node >= 0) ++own[static_cast<size_t>(node << bits | digit)];
        }
    });
    add_up(by_thread, slots, counts);
}

AtNodes at_nodes(const Ranking& ranking, const std::vector<DigitLevel>& levels) {
    const int64_t parts = parts_of(ranking.count, ranking.threads);
    std::vector<AtNodes> by_part(static_cast<size_t>(parts));
    for_blocks(ranking.count, parts, ranking.threads, [&](int64_t part, int64_t first, int n) {
        const Keyed block(ranking, first, n);
        AtNodes& own = by_part[static_cast<size_t>(part)];
        for (int i = 0; i < n; ++i) {
            if (block.rows[i] == ranking.groups.count) continue;
            const int64_t node = node_of(levels, block.rows[i], block.keys[i]);
            if (node < 0) continue;
            own.positions.push_back(first + i);
            own.nodes.push_back(static_cast<int32_t>(node));
        }
    });
    AtNodes whole;
    for (AtNodes& part : by_part) {
        whole.positions.insert(whole.positions.end(), part.positions.begin(), part.positions.end());
        whole.nodes.insert(whole.nodes.end(), part.nodes.begin(), part.nodes.end());
        part = {};
    }
    return whole;
}

void extents(const Ranking& ranking, const uint64_t* least, uint64_t* low, uint64_t* high) {
    struct Extent {
        uint64_t low = ~uint64_t{0}, high = 0;
        void add(uint64_t lower, uint64_t higher) { low = std::min(low, lower), high = std::max(high, higher); }
    };
    const int64_t parts = parts_of(ranking.count, ranking.threads);
    const std::vector<Extent> none(static_cast<size_t>(ranking.groups.count));
    std::vector<std::vector<Extent>> by_thread(threads_of(parts, ranking.threads), none);
    for_blocks(ranking.count, parts, by_thread, [&](int64_t, int64_t first, int n, std::vector<Extent>& own) {
        const Keyed block(ranking, first, n);
        for (int i = 0; i < n; ++i) {
            const uint32_t row = block.rows[i];
            if (row < ranking.groups.count && block.keys[i] >= least[row]) own[row].add(block.keys[i], block.keys[i]);
        }
    });
    for (size_t group = 0; group < none.size(); ++group) {
        Extent whole;
        for (const std::vector<Extent>& thread : by_thread) whole.add(thread[group].low, thread[group].high);
        low[group] = whole.low, high[group] = whole.high;
    }
}

void mark_below(const Ranking& ranking, const Cuts& cuts, uint8_t* bits) {
    std::memset(bits, 0, static_cast<size_t>((ranking.count + 7) / 8));
    place(ranking, cuts, [=](int64_t first, int n, const uint32_t*, const int32_t* at) {
        for (int i = 0; i < n; ++i) bits[(first + i) / 8] |= static_cast<uint8_t>((at[i] == 0) << (first + i) % 8);
    });
}

void stratify(const Ranking& ranking, const Cuts& cuts, const Bands* bands, uint16_t* narrow, int32_t* wide) {
    if (narrow) {
        place_numbers(ranking, cuts, bands, narrow);
    } else {
        place_numbers(ranking, cuts, bands, wide);
    }
}

}  // namespace dualfast
