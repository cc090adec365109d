// The race in float32, at the speed of memory: decides nearly all samples and returns the undecided ones.
//
// A sample's exp(key) is its wait, -log u, over its weight. Here waits are in units of log 2, and weights are scaled so
// that a wait is compared with weight * bound: one logarithm and one power, where the exact key takes two logarithms
// more. Errors, in units of log2: of the wait 1e-4 (5e-5 relative of the polynomial, and as much of u, of which 20 to
// 32 bits are known), and near u = 1 what kNearOne allows for; of the power 1.1e-4; of each logarithm 9e-5 and of the
// sum of both 3e-5 of rounding, times the exponents |a-1| and |b-1|. The slack is three times the sum of all that.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "select_block.h"

namespace dualfast {
namespace {

#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")  // these are bounds, so their bits may differ between processors
INLINE float bits_to_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
INLINE uint32_t float_to_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();  // compares neither below low nor above high
constexpr float kNearOne = 0x1p-23f;                                 // u is rounded by 2^-25
constexpr uint32_t kMinWord = 1 << 12;                               // a smaller word has too few bits of u

// -log2 u from the upper words of u.
INLINE void approx_waits(const uint32_t* word, int n, float* waits) {
    uint32_t min_word = kMinWord;
    for (int i = 0; i < n; ++i) {
        min_word = std::min(min_word, word[i]);
        const uint32_t bits = float_to_bits(static_cast<float>(static_cast<int32_t>(word[i] >> 1)));
        const int32_t e = static_cast<int32_t>(bits - 0x3F3504F3) >> 23;
        const float f = bits_to_float(bits - (static_cast<uint32_t>(e) << 23)) - 1.0f;  // sqrt(1/2) to sqrt(2), less 1
        // Minimax fit of log2(1 + f) / f.
        const float slope = (((0.25474668f * f - 0.39089091f) * f + 0.48530708f) * f - 0.72055511f) * f + 1.4426463f;
        waits[i] = static_cast<float>(31 - e) - f * slope;
    }
    for (int i = 0; min_word < kMinWord && i < n; ++i) waits[i] = word[i] < kMinWord ? kUnknown : waits[i];
}

// Adds power * log2(x) to a sum that already contains power * kLogConstant; x is positive and normal. The bits of a
// float, read as an integer, are its logarithm up to a function of its mantissa.
constexpr double kLogConstant = -126.0 - 2.5128525374641812;
struct ApproxLog2 {
    float scale, c1, c2, c3, c4;  // minimax fit of log2(m) - m for 1 <= m < 2, times the power
    explicit ApproxLog2(double power)
        : scale(static_cast<float>(power * 0x1p-23)),
          c1(static_cast<float>(power * 3.0700845929894918)),
          c2(static_cast<float>(power * -2.1206683832209188)),
          c3(static_cast<float>(power * 0.6451391563308834)),
          c4(static_cast<float>(power * -0.08161524675961526)) {}
    INLINE float add_to(float sum, uint32_t bits) const {
        const float m = bits_to_float((bits & 0x007FFFFF) | 0x3F800000);
        sum = static_cast<float>(static_cast<int32_t>(bits)) * scale + sum;
        return (((c4 * m + c3) * m + c2) * m + c1) * m + sum;
    }
};

// 2^x with x clamped to [-125, 125].
constexpr float kMaxExponent = 125;
INLINE float approx_exp2(float x) {
    x = x < kMaxExponent ? x : kMaxExponent;
    x = x > -kMaxExponent ? x : -kMaxExponent;
    const float shifted = x + 12582912.0f;  // rounds to an integer, held by the lowest bits
    const float f = x - (shifted - 12582912.0f);
    const float power = ((0.05517176f * f + 0.24261134f) * f + 0.69326097f) * f + 0.99992803f;
    return bits_to_float(float_to_bits(power) + (float_to_bits(shifted) << 23));
}

// Constants of a race and its two bounds. Weights are scaled by exp(origin), where origin is one of the bounds (log 2
// if neither is finite), so that low and high are near 1.
struct Bounds {
    float low, high;        // the bounds as factors of the weight, widened by the slack
    float start;            // a weight's log2 starts from this: the origin and the constants of both logarithms
    bool zero_weights_low;  // samples of weight zero may lie within the bounds
    float zero_weight;      // stands for a weight of zero in that case
    float error;            // the ratio of wait and weight is known up to this factor
    ApproxLog2 log_mean, log_rest;

    Bounds(const Race& race, double low_key, double high_key) : log_mean(race.a - 1.0), log_rest(race.b - 1.0) {
        const double powers = race.mean.data ? std::abs(race.a - 1.0) + std::abs(race.b - 1.0) : 0.0;
        const double constants = race.mean.data ? (race.a + race.b - 2.0) * kLogConstant : 0.0;
        const double slack = 1e-3 + 3e-4 * powers, unit = std::log(2.0), log_unit = std::log(unit);
        const double origin = std::isfinite(low_key) ? low_key : std::isfinite(high_key) ? high_key : log_unit;
        error = static_cast<float>(std::exp2(slack));
        low = static_cast<float>(std::exp2((low_key - origin) / unit - slack));
        high = static_cast<float>(std::exp2((high_key - origin) / unit + slack));
        start = static_cast<float>((origin - log_unit) / unit + constants);
        zero_weights_low = high_key > kZeroWeightKey - 50.0;  // log(-log u) is above -37
        zero_weight = static_cast<float>(std::exp2((origin - log_unit - kZeroWeightKey) / unit));
    }
};

// The columns of a block and its outcome. Aligned, or each AVX-512 access would straddle two cache lines.
struct alignas(64) Block {
    float waits[kBlock], log_weights[kBlock], weights[kBlock];  // log_weights: in units of log2, without the score
    uint32_t below[kBlock / 32];                                // bitmap: certainly below low
    int n_below, n_undecided;
    int64_t undecided[kBlock + 4];  // positions
    float ratios[kBlock];           // of the undecided ones

    // Wait over weight, or NaN where Bounds::error does not hold for it.
    float ratio(int i) const {
        constexpr float kRange = 0x1p60f;
        const bool known = waits[i] > 4096 * kNearOne && std::abs(log_weights[i]) < 100 && weights[i] > 1 / kRange &&
                           weights[i] < kRange;
        return known ? waits[i] / weights[i] : kUnknown;
    }
};

// Fills log_weights from the means. Returns true if a mean is not in [0, 1].
template <class T>
INLINE bool weigh_means(const Bounds& bounds, const T* mean, int n, float* log_weights) {
    constexpr int32_t kEdge = 0x2B8CBCCC;  // the bits of 1e-12f, the edge of select_keys.cpp
    uint32_t max_bits = 0;
    for (int i = 0; i < n; ++i) {
        const uint32_t a = float_to_bits(static_cast<float>(mean[i])),
                       b = float_to_bits(static_cast<float>(1 - mean[i]));
        max_bits = std::max(max_bits, sizeof(T) == 4 ? a : std::max(a, b));  // negative and NaN are larger, too
        const float sum = bounds.log_mean.add_to(bounds.start, std::max(static_cast<int32_t>(a), kEdge));
        log_weights[i] = bounds.log_rest.add_to(sum, std::max(static_cast<int32_t>(b), kEdge));
    }
    return max_bits > float_to_bits(1.0f);
}

// Fills the weights from log_weights and the scores. Returns true if a score is not in [0, inf).
template <class T>
INLINE bool weigh_scores(const Bounds& bounds, const T* score, int n, Block& block) {
    uint32_t max_bits = 0;
    int32_t max_log_bits = 0;
    for (int i = 0; i < n; ++i) {
        const auto x = static_cast<float>(score[i]);
        max_bits = std::max(max_bits, float_to_bits(x));
        max_log_bits = std::max(max_log_bits, static_cast<int32_t>(float_to_bits(block.log_weights[i])));
        block.weights[i] = approx_exp2(block.log_weights[i]) * x;
    }
    constexpr float kLarge = 0x1p100f;
    for (int i = 0; bounds.zero_weights_low && i < n; ++i) {
        if (score[i] == 0) block.weights[i] = bounds.zero_weight, block.log_weights[i] = 0;
    }
    if (max_bits > float_to_bits(kLarge) || max_log_bits > static_cast<int32_t>(float_to_bits(100.0f))) {
        // Score and power may cancel although each is outside float's range.
        for (int i = 0; i < n; ++i) {
            if (score[i] == 0 || (score[i] > 1 / kLarge && score[i] < kLarge)) continue;
            int exponent;
            const auto mantissa = static_cast<float>(std::frexp(score[i], &exponent));
            block.weights[i] = approx_exp2(block.log_weights[i] + static_cast<float>(exponent)) * mantissa;
        }
    }
    return max_bits > float_to_bits(std::numeric_limits<float>::max());
}

// 32 for 0.
INLINE int trailing_zeros(uint32_t bits) { return __builtin_ctzll(bits | uint64_t{1} << 32); }

// Compares the waits of samples first..first + kBlock - 1 with the bounds.
INLINE void compare(const Bounds& bounds, int64_t first, Block& block) {
    block.n_below = block.n_undecided = 0;
    for (int word = 0; word < kBlock / 32; ++word) {
        uint32_t below = 0, above = 0;
        for (int i = 0; i < 32; ++i) {
            const float wait = block.waits[32 * word + i], weight = block.weights[32 * word + i];
            below |= static_cast<uint32_t>(wait < weight * bounds.low - kNearOne) << i;
            above |= static_cast<uint32_t>(wait > weight * bounds.high + kNearOne) << i;
        }
        block.below[word] = below;
        block.n_below += __builtin_popcount(below);
        uint32_t undecided = ~(below | above);
        const int n_undecided = __builtin_popcount(undecided);
        // Always write two: more are rare, and a loop whose length varies costs mispredicted branches.
        int64_t* to = block.undecided + block.n_undecided;
        for (int i = 0; i < 2 || i < n_undecided; ++i, undecided &= undecided - 1) {
            to[i] = first + 32 * word + trailing_zeros(undecided);
        }
        block.n_undecided += n_undecided;
    }
    for (int i = 0; i < block.n_undecided; ++i) {
        block.ratios[i] = block.ratio(static_cast<int>(block.undecided[i] - first));
    }
}

// Returns true if the block has an invalid score or mean.
INLINE bool classify_block_at_level(const Race& race, const Bounds& bounds, int64_t first, int n, Block& block) {
    uint32_t buffer[4 * kBlock];
    prefetch(race.score, first + n, race.count);
    prefetch(race.mean, first + n, race.count);
    approx_waits(random_words(race, first, n, 0, buffer), n, block.waits);
    bool invalid = false;
    for (int i = 0; !race.mean.data && i < n; ++i) block.log_weights[i] = bounds.start;
    if (race.mean.data) WITH_VALUES(race.mean, first, invalid |= weigh_means(bounds, values, n, block.log_weights));
    for (int i = 0; !race.score.data && i < n; ++i) block.weights[i] = approx_exp2(block.log_weights[i]);
    if (race.score.data) WITH_VALUES(race.score, first, invalid |= weigh_scores(bounds, values, n, block));
    for (int i = n; i < kBlock; ++i) block.waits[i] = INFINITY, block.weights[i] = -1;  // certainly above
    compare(bounds, first, block);
    return invalid;
}
AT_LEVELS(bool, classify_block, (const Race& race, const Bounds& bounds, int64_t first, int n, Block& block),
          (race, bounds, first, n, block))
#pragma GCC pop_options

template <class T>
int64_t first_outside(const T* values, int64_t first, int64_t last, T max) {
    while (first < last && values[first] >= 0 && values[first] <= max) ++first;
    return first;
}

// The first position in first..last-1 with an invalid score or mean, or last.
int64_t first_invalid(const Race& race, int64_t first, int64_t last) {
    if (race.score.data) {
        WITH_VALUES(race.score, 0, using T = std::decay_t<decltype(*values)>;
                    last = first_outside(values, first, last, std::numeric_limits<T>::max()));
    }
    if (race.mean.data) {
        WITH_VALUES(race.mean, 0, using T = std::decay_t<decltype(*values)>;
                    last = first_outside(values, first, last, T{1}));
    }
    return last;
}

// Touches the pages that begin in data[begin..end - 1].
void prefault(const PrefaultBuffer& buffer, int64_t begin, int64_t end) {
    constexpr int64_t kPage = 4096;
    end = std::min(end, buffer.bytes);
    for (int64_t at = (begin + kPage - 1) / kPage * kPage; at < end; at += kPage) buffer.data[at] = 0;
}

void append(Classified& to, const int64_t* undecided, const float* ratios, int64_t count) {
    to.undecided.insert(to.undecided.end(), undecided, undecided + count);
    to.ratios.insert(to.ratios.end(), ratios, ratios + count);
}

}  // namespace

Classified classify(const Race& race, double low, double high, uint8_t* bits, PrefaultBuffer prefault_buffer) {
    const Bounds bounds(race, low, high);
    const int64_t parts = parts_of(race.count, race.threads);
    const int64_t blocks = (race.count + kBlock - 1) / kBlock;
    const int64_t per_block = blocks > 0 ? (prefault_buffer.bytes + blocks - 1) / blocks : 0;  // bytes to touch
    std::vector<Classified> by_part(static_cast<size_t>(parts), Classified{0, -1, {}, {}, bounds.error});
    for_blocks(race.count, parts, race.threads, [&](int64_t part, int64_t first, int n) {
        Classified& own = by_part[static_cast<size_t>(part)];
        Block block;
        if (classify_block(race, bounds, first, n, block) && own.first_invalid < 0) {
            const int64_t invalid = first_invalid(race, first, first + n);
            if (invalid < first + n) own.first_invalid = invalid;
        }
        std::memcpy(bits + first / 8, block.below, static_cast<size_t>((n + 7) / 8));
        own.n_below += block.n_below;
        append(own, block.undecided, block.ratios, block.n_undecided);
        prefault(prefault_buffer, first / kBlock * per_block, (first / kBlock + 1) * per_block);
    });
    if (parts == 1) return std::move(by_part[0]);
    Classified whole{0, -1, {}, {}, bounds.error};
    size_t n_undecided = 0;
    for (const Classified& part : by_part) n_undecided += part.undecided.size();
    whole.undecided.reserve(n_undecided);
    whole.ratios.reserve(n_undecided);
    for (const Classified& part : by_part) {
        whole.n_below += part.n_below;
        if (whole.first_invalid < 0) whole.first_invalid = part.first_invalid;
        append(whole, part.undecided.data(), part.ratios.data(), static_cast<int64_t>(part.undecided.size()));
    }
    return whole;
}

}  // namespace dualfast
