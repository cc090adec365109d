// The race in float32, at the speed of memory: the waits and weights of a block of samples.
//
// A sample's exp(key) is its wait, -log u, over its weight. Here waits are in units of log 2, and weights are scaled so
// that a wait is compared with weight * bound: one logarithm and one power, where the exact key takes two logarithms
// more. Errors, in units of log2: of the wait 1e-4 (5e-5 relative of the polynomial, and as much of u, of which 20 to
// 32 bits are known), and near u = 1 what kNearOne allows for; of the power 1.1e-4; of each logarithm 9e-5 and of the
// sum of both 3e-5 of rounding, times the exponents |a-1| and |b-1|. The slack is three times the sum of all that.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "select_block.h"

namespace dualfast {

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

constexpr int kReach = 60;  // how far from the origin the bounds of groups may lie, in units of log2

// Constants of a race whose weights are scaled by exp(origin), so that keys near the origin have ratios near 1.
struct Scale {
    double origin, slack;  // the ratio of wait and weight is known up to 2^slack
    float start;           // a weight's log2 starts from this: the origin and the constants of both logarithms
    float log_large;       // where a score or 2^log_weight is above 2^log_large, their product is taken in logarithms
    bool zero_weights;     // samples of weight zero may be near the origin
    float zero_weight;     // stands for a weight of zero in that case
    ApproxLog2 log_mean, log_rest;

    // Keys will be compared with bounds up to `reach` from the origin, in units of log2. A weight below 2^-125 is taken
    // for 2^-125 and one near 2^-126 has lost digits, so that times a bound they must stay below kNearOne.
    Scale(const Race& race, double origin_key, int reach)
        : origin(origin_key),
          log_large(static_cast<float>(100 - reach)),
          log_mean(race.a - 1.0),
          log_rest(race.b - 1.0) {
        const double powers = race.mean.data ? std::abs(race.a - 1.0) + std::abs(race.b - 1.0) : 0.0;
        const double constants = race.mean.data ? (race.a + race.b - 2.0) * kLogConstant : 0.0;
        const double unit = std::log(2.0), log_unit = std::log(unit);
        slack = 1e-3 + 3e-4 * powers;
        start = static_cast<float>((origin - log_unit) / unit + constants);
        zero_weights = origin > kZeroWeightKey - 50.0;  // log(-log u) is above -37
        zero_weight = static_cast<float>(std::exp2((origin - log_unit - kZeroWeightKey) / unit));
    }
    float error() const { return static_cast<float>(std::exp2(slack)); }
    // Of a bound on the key, as a factor of the weight; widened by the slack in the direction of `side`.
    float factor(double key, int side) const {
        return static_cast<float>(std::exp2((key - origin) / std::log(2.0) + side * slack));
    }
};

// The columns of a block. Aligned, or each AVX-512 access would straddle two cache lines.
struct alignas(64) Block {
    float waits[kBlock], log_weights[kBlock], weights[kBlock];  // log_weights: in units of log2, without the score
};

// Fills log_weights from the means. Returns true if a mean is not in [0, 1].
template <class T>
INLINE bool weigh_means(const Scale& scale, const T* mean, int n, float* log_weights) {
    constexpr int32_t kEdge = 0x2B8CBCCC;  // the bits of 1e-12f, the edge of select_keys.cpp
    uint32_t max_bits = 0;
    for (int i = 0; i < n; ++i) {
        const uint32_t a = float_to_bits(static_cast<float>(mean[i])),
                       b = float_to_bits(static_cast<float>(1 - mean[i]));
        max_bits = std::max(max_bits, sizeof(T) == 4 ? a : std::max(a, b));  // negative and NaN are larger, too
        const float sum = scale.log_mean.add_to(scale.start, std::max(static_cast<int32_t>(a), kEdge));
        log_weights[i] = scale.log_rest.add_to(sum, std::max(static_cast<int32_t>(b), kEdge));
    }
    return max_bits > float_to_bits(1.0f);
}

// Fills the weights from log_weights and the scores. Returns true if a score is not in [0, inf).
template <class T>
INLINE bool weigh_scores(const Scale& scale, const T* score, int n, Block& block) {
    uint32_t max_bits = 0;
    int32_t max_log_bits = 0;
    for (int i = 0; i < n; ++i) {
        const auto x = static_cast<float>(score[i]);
        max_bits = std::max(max_bits, float_to_bits(x));
        max_log_bits = std::max(max_log_bits, static_cast<int32_t>(float_to_bits(block.log_weights[i])));
        block.weights[i] = approx_exp2(block.log_weights[i]) * x;
    }
    const float large = bits_to_float(static_cast<uint32_t>(scale.log_large + 127) << 23);  // 2^log_large
    for (int i = 0; scale.zero_weights && i < n; ++i) {
        if (score[i] == 0) block.weights[i] = scale.zero_weight, block.log_weights[i] = 0;
    }
    if (max_bits > float_to_bits(large) || max_log_bits > static_cast<int32_t>(float_to_bits(scale.log_large))) {
        // Score and power may cancel although each is outside float's range.
        for (int i = 0; i < n; ++i) {
            if (score[i] == 0 || (score[i] > 1 / large && score[i] < large)) continue;
            int exponent;
            const auto mantissa = static_cast<float>(std::frexp(score[i], &exponent));
            block.weights[i] = approx_exp2(block.log_weights[i] + static_cast<float>(exponent)) * mantissa;
        }
    }
    return max_bits > float_to_bits(std::numeric_limits<float>::max());
}

// Fills the block's columns, of samples first..first + n - 1. Returns true if one has an invalid score or mean.
INLINE bool fill_block(const Race& race, const Scale& scale, int64_t first, int n, Block& block) {
    uint32_t buffer[4 * kBlock];
    prefetch(race.score, first + n, race.count);
    prefetch(race.mean, first + n, race.count);
    approx_waits(random_words(race, first, n, 0, buffer), n, block.waits);
    bool invalid = false;
    for (int i = 0; !race.mean.data && i < n; ++i) block.log_weights[i] = scale.start;
    if (race.mean.data) WITH_VALUES(race.mean, first, invalid |= weigh_means(scale, values, n, block.log_weights));
    for (int i = 0; !race.score.data && i < n; ++i) block.weights[i] = approx_exp2(block.log_weights[i]);
    if (race.score.data) WITH_VALUES(race.score, first, invalid |= weigh_scores(scale, values, n, block));
    for (int i = n; i < kBlock; ++i) block.waits[i] = INFINITY, block.weights[i] = -1;  // certainly above
    return invalid;
}
#pragma GCC pop_options

}  // namespace dualfast
