// Decides nearly all samples of the race in float32 and returns the undecided ones.
#include <type_traits>

#include "select_approx.h"

namespace dualfast {
namespace {

#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")  // these are bounds, so their bits may differ between processors

// A group's bounds as factors of the weight.
struct Bracket {
    float low, high;
};

struct Bounds {
    Scale scale;
    std::vector<Bracket> brackets;  // of each group, and of samples in none

    Bounds(const Race& race, const Groups& groups, const double* low_key, const double* high_key, double origin)
        : scale(race, origin, groups.numbered() ? kReach : 0) {
        for (int64_t group = 0; group < groups.count; ++group) {
            const float low = scale.factor(low_key[group], -1), high = scale.factor(high_key[group], 1);
            brackets.push_back(groups.numbered() ? within_reach(low, high) : Bracket{low, high});
        }
        brackets.push_back({0, 0});
    }
    // Beyond the reach of the scale nothing is certain.
    static Bracket within_reach(float low, float high) {
        const float reach = std::ldexp(1.0f, kReach);
        return {std::min(low, reach), high > reach ? INFINITY : std::max(high, 1 / reach)};
    }
};

struct Outcome {
    uint32_t allowed[kBlock / 32], below[kBlock / 32];  // bitmaps; below: certainly below low
    uint32_t rows[kBlock];                              // where groups are numbered
    float low[kBlock], high[kBlock];                    // the bounds of each sample, too
    int n_below, n_undecided;
    int64_t undecided[kBlock + 4];  // positions
    float ratios[kBlock];           // of the undecided ones
};

// 32 for 0.
INLINE int trailing_zeros(uint32_t bits) { return __builtin_ctzll(bits | uint64_t{1} << 32); }

// Which samples may be drawn, and the bounds of each.
INLINE void prepare(const Groups& groups, const Bounds& bounds, int64_t first, int n, Outcome& out) {
    std::memset(out.allowed, groups.allowed ? 0 : 0xFF, sizeof out.allowed);
    if (groups.allowed) std::memcpy(out.allowed, groups.allowed + first / 8, static_cast<size_t>((n + 7) / 8));
    if (!groups.numbered()) return;
    rows_of(groups, first, n, out.rows);
    for (int i = n; i < kBlock; ++i) out.rows[i] = static_cast<uint32_t>(groups.count);
    for (int word = 0; word < kBlock / 32; ++word) {
        uint32_t in_group = 0;
        for (int i = 0; i < 32; ++i) in_group |= uint32_t{out.rows[32 * word + i] < groups.count} << i;
        out.allowed[word] = in_group;
    }
    const Bracket* of_group = bounds.brackets.data();
    for (int i = 0; i < kBlock; ++i) {
        const Bracket bracket = of_group[out.rows[i]];
        out.low[i] = bracket.low, out.high[i] = bracket.high;
    }
}

// Compares the waits of samples first..first + kBlock - 1 with the bounds.
template <bool kNumbered>
INLINE void compare(const Bounds& bounds, int64_t first, const Block& block, Outcome& out) {
    out.n_below = out.n_undecided = 0;
    const Bracket one = bounds.brackets[0];
    for (int word = 0; word < kBlock / 32; ++word) {
        uint32_t below = 0, above = 0;
        for (int i = 0; i < 32; ++i) {
            const float wait = block.waits[32 * word + i], weight = block.weights[32 * word + i];
            const float low = kNumbered ? out.low[32 * word + i] : one.low;
            const float high = kNumbered ? out.high[32 * word + i] : one.high;
            below |= static_cast<uint32_t>(wait < weight * low - kNearOne) << i;
            above |= static_cast<uint32_t>(wait > weight * high + kNearOne) << i;
        }
        below &= out.allowed[word];
        out.below[word] = below;
        out.n_below += __builtin_popcount(below);
        uint32_t undecided = ~(below | above) & out.allowed[word];
        const int n_undecided = __builtin_popcount(undecided);
        // Always write two: more are rare, and a loop whose length varies costs mispredicted branches.
        int64_t* to = out.undecided + out.n_undecided;
        for (int i = 0; i < 2 || i < n_undecided; ++i, undecided &= undecided - 1) {
            to[i] = first + 32 * word + trailing_zeros(undecided);
        }
        out.n_undecided += n_undecided;
    }
}

// Wait over weight, or NaN where Scale::error does not hold for it.
INLINE float ratio(const Block& block, int64_t i) {
    constexpr float kRange = 0x1p60f;
    const float wait = block.waits[i], weight = block.weights[i];
    const bool known =
        wait > 4096 * kNearOne && std::abs(block.log_weights[i]) < 100 && weight > 1 / kRange && weight < kRange;
    return known ? wait / weight : kUnknown;
}

// Returns true if the block has an invalid score or mean.
INLINE bool classify_block_at_level(const Race& race, const Groups& groups, const Bounds& bounds, int64_t first, int n,
                                    Block& block, Outcome& out) {
    const bool invalid = fill_block(race, bounds.scale, first, n, block);
    prepare(groups, bounds, first, n, out);
    if (groups.numbered()) {
        compare<true>(bounds, first, block, out);
    } else {
        compare<false>(bounds, first, block, out);
        for (int i = 0; i < out.n_undecided; ++i) out.ratios[i] = ratio(block, out.undecided[i] - first);
    }
    return invalid;
}
AT_LEVELS(bool, classify_block,
          (const Race& race, const Groups& groups, const Bounds& bounds, int64_t first, int n, Block& block,
           Outcome& out),
          (race, groups, bounds, first, n, block, out))
#pragma GCC pop_options

template <class T>
bool outside(const Column& column, int64_t i, T max) {
    const T value = static_cast<const T*>(column.data)[i];
    return !(value >= 0 && value <= max);
}

bool invalid_at(const Race& race, int64_t i) {
    for (const Column* column : {&race.score, &race.mean}) {
        const bool is_mean = column == &race.mean;
        if (!column->data) continue;
        if (column->is_double ? outside(*column, i, is_mean ? 1.0 : std::numeric_limits<double>::max())
                              : outside(*column, i, is_mean ? 1.0f : std::numeric_limits<float>::max())) {
            return true;
        }
    }
    return false;
}

// The first position of the block that may be drawn and has an invalid score or mean, or -1.
int64_t first_invalid(const Race& race, const Outcome& out, int64_t first, int n) {
    for (int i = 0; i < n; ++i) {
        if (out.allowed[i / 32] >> i % 32 & 1 && invalid_at(race, first + i)) return first + i;
    }
    return -1;
}

// Touches the pages that begin in data[begin..end - 1].
void prefault(const PrefaultBuffer& buffer, int64_t begin, int64_t end) {
    constexpr int64_t kPage = 4096;
    end = std::min(end, buffer.bytes);
    for (int64_t at = (begin + kPage - 1) / kPage * kPage; at < end; at += kPage) buffer.data[at] = 0;
}

// What is found in a part, on cache lines of its own: neighbours are written at the same time.
struct alignas(64) Part : Classified {};
constexpr size_t kOwnLines = 16;  // 64-bit counters that keep those of different threads on different cache lines

// The undecided samples of all parts, one after the other.
Classified joined(std::vector<Part>& parts) {
    Classified whole{{}, -1, {}, {}, parts[0].error};
    size_t n_undecided = 0, n_ratios = 0;
    for (const Part& part : parts) n_undecided += part.undecided.size(), n_ratios += part.ratios.size();
    whole.undecided.reserve(n_undecided);
    whole.ratios.reserve(n_ratios);
    for (Part& part : parts) {
        if (whole.first_invalid < 0) whole.first_invalid = part.first_invalid;
        whole.undecided.insert(whole.undecided.end(), part.undecided.begin(), part.undecided.end());
        whole.ratios.insert(whole.ratios.end(), part.ratios.begin(), part.ratios.end());
        static_cast<Classified&>(part) = {};
    }
    return whole;
}

// How many samples of each group are below.
void count_below(const Groups& groups, const Outcome& out, int n, std::vector<int64_t>& counts) {
    if (!groups.numbered()) counts[0] += out.n_below;
    for (int i = 0; groups.numbered() && i < n; ++i) counts[out.rows[i]] += out.below[i / 32] >> i % 32 & 1;
}

struct Span {
    int64_t begin, end;
};

// Not inlined: what it writes would lie on the calling thread's stack, on the cache lines where the other threads read
// the bounds. That costs a tenth of the time.
__attribute__((noinline)) void classify_span(const Race& race, const Groups& groups, const Bounds& bounds, Span span,
                                             uint8_t* bits, const PrefaultBuffer& prefault_buffer, Part& own,
                                             std::vector<int64_t>& n_below) {
    const int64_t blocks = (race.count + kBlock - 1) / kBlock;
    const int64_t per_block = (prefault_buffer.bytes + blocks - 1) / blocks;  // bytes to touch
    Block block;
    Outcome out;
    for (int64_t first = span.begin; first < span.end; first += kBlock) {
        const int n = static_cast<int>(std::min<int64_t>(kBlock, span.end - first));
        if (classify_block(race, groups, bounds, first, n, block, out) && own.first_invalid < 0) {
            own.first_invalid = first_invalid(race, out, first, n);
        }
        std::memcpy(bits + first / 8, out.below, static_cast<size_t>((n + 7) / 8));
        own.undecided.insert(own.undecided.end(), out.undecided, out.undecided + out.n_undecided);
        if (!groups.numbered()) own.ratios.insert(own.ratios.end(), out.ratios, out.ratios + out.n_undecided);
        count_below(groups, out, n, n_below);
        prefault(prefault_buffer, first / kBlock * per_block, (first / kBlock + 1) * per_block);
    }
}

}  // namespace

Classified classify(const Race& race, const Groups& groups, const double* low, const double* high, double origin,
                    uint8_t* bits, PrefaultBuffer prefault_buffer) {
    const Bounds bounds(race, groups, low, high, origin);
    const int64_t parts = parts_of(race.count, race.threads);
    const auto counters = static_cast<size_t>(groups.count) + 1;
    const std::vector<int64_t> zeros(std::max(counters, kOwnLines));
    std::vector<std::vector<int64_t>> below(threads_of(parts, race.threads), zeros);
    std::vector<Part> by_part(static_cast<size_t>(parts), Part{{{}, -1, {}, {}, bounds.scale.error()}});
    for_parts(parts, below, [&](int64_t part, std::vector<int64_t>& n_below) {
        const Span span{begin_of(race.count, parts, part), begin_of(race.count, parts, part + 1)};
        classify_span(race, groups, bounds, span, bits, prefault_buffer, by_part[static_cast<size_t>(part)], n_below);
    });
    Classified whole = parts > 1 ? joined(by_part) : std::move(by_part[0]);
    whole.n_below.resize(counters - 1);
    for (const std::vector<int64_t>& thread : below) {
        for (size_t group = 0; group < whole.n_below.size(); ++group) whole.n_below[group] += thread[group];
    }
    return whole;
}

}  // namespace dualfast
