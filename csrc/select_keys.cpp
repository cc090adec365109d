// The exact keys of the race, in float64.
#include <algorithm>
#include <cstring>

#include "select_block.h"

namespace dualfast {
namespace {

constexpr double kMeanEdge = 1e-12;  // a mean of 0 or 1 makes the Beta density 0 or infinite

// Natural logarithm of a positive normal number, the same bits on every machine: relative error below 4e-16 away from
// 1, absolute error below 3e-16 near it. fdlibm's series in a fixed order of operations; no branch, so that loops over
// it vectorize.
INLINE double log_of(double x) {
    uint64_t bits;
    std::memcpy(&bits, &x, 8);
    const uint64_t shifted = bits - 0x3FE6A09E667F3BCDull;
    const auto k = static_cast<int64_t>(shifted) >> 52;
    bits -= static_cast<uint64_t>(k) << 52;
    double m;
    std::memcpy(&m, &bits, 8);
    // k as a double without an integer conversion, which has no vector form before AVX-512.
    uint64_t magic = 0x4338000000000000ull + static_cast<uint64_t>(k);
    double e;
    std::memcpy(&e, &magic, 8);
    e -= 6755399441055744.0;
    const double f = m - 1.0, s = f / (2.0 + f), z = s * s, w = z * z;
    const double odd = z * (0.6666666666666735130 +
                            w * (0.2857142874366239149 + w * (0.1818357216161805012 + w * 0.1479819860511658591)));
    const double even = w * (0.3999999999940941908 + w * (0.2222219843214978396 + w * 0.1531383769920937332));
    const double half = 0.5 * f * f;
    return e * 6.93147180369123816490e-01 - ((half - (s * (half + odd + even) + e * 1.90821492927058770002e-10)) - f);
}

// Subnormal scores are scaled by 2^54 first.
template <class T>
INLINE void subtract_log_score(const T* score, int n, double* keys) {
    for (int i = 0; i < n; ++i) {
        const auto x = static_cast<double>(score[i]);
        const double normal = x < 2.2250738585072014e-308 ? x * 18014398509481984.0 : x;
        keys[i] -= log_of(normal) - (normal == x ? 0.0 : 37.42994775023705);
    }
}

template <class T>
INLINE void subtract_log_beta(const T* mean, int n, double a, double b, double* keys) {
    for (int i = 0; i < n; ++i) {
        const auto m = static_cast<double>(mean[i]);
        keys[i] -= (a - 1.0) * log_of(std::max(m, kMeanEdge)) + (b - 1.0) * log_of(std::max(1.0 - m, kMeanEdge));
    }
}

template <class T>
INLINE void put_zero_weights_last(const T* score, int n, const double* log_waits, double* keys) {
    for (int i = 0; i < n; ++i) keys[i] = score[i] > 0 ? keys[i] : log_waits[i] + kZeroWeightKey;
}

INLINE void keys_of_at_level(const Race& race, int64_t first, int n, double* keys) {
    uint32_t buffer0[4 * kBlock], buffer1[4 * kBlock];
    const uint32_t* upper = random_words(race, first, n, 0, buffer0);
    const uint32_t* lower = random_words(race, first, n, 1, buffer1);
    double log_waits[kBlock];
    for (int i = 0; i < n; ++i) {
        // In (0, 1): 53 random bits and a half; combined without converting a 64-bit integer.
        const double u = (upper[i] * 4294967296.0 + (lower[i] & 0xFFFFF800u) + 1024.0) * 5.421010862427522e-20;
        keys[i] = log_waits[i] = log_of(-log_of(u));
    }
    if (race.score.data) WITH_VALUES(race.score, first, subtract_log_score(values, n, keys));
    if (race.mean.data) WITH_VALUES(race.mean, first, subtract_log_beta(values, n, race.a, race.b, keys));
    if (race.score.data) WITH_VALUES(race.score, first, put_zero_weights_last(values, n, log_waits, keys));
}
AT_LEVELS(void, keys_of, (const Race& race, int64_t first, int n, double* keys), (race, first, n, keys))

// A copy of the samples at some positions, side by side.
struct Gathered {
    int64_t ids[kBlock];
    double mean[kBlock], score[kBlock];

    static void prefetch(const Column& column, const int64_t* positions, int64_t n) {
        const auto* data = static_cast<const char*>(column.data);
        const int64_t width = column.is_double ? 8 : 4;
        for (int64_t i = 0; data && i < n; ++i) __builtin_prefetch(data + positions[i] * width);
    }

    static Column gather(const Column& column, const int64_t* positions, int n, double* to) {
        if (!column.data) return {nullptr, true};
        WITH_VALUES(column, 0, for (int i = 0; i < n; ++i) to[i] = static_cast<double>(values[positions[i]]));
        return {to, true};
    }

    Race race(const Race& whole, const int64_t* positions, int n) {
        for (int i = 0; i < n; ++i) ids[i] = whole.ids ? whole.ids[positions[i]] : whole.first + positions[i];
        Race gathered = whole;
        gathered.mean = gather(whole.mean, positions, n, mean);
        gathered.score = gather(whole.score, positions, n, score);
        gathered.ids = ids;
        return gathered;
    }
};

}  // namespace

void race_keys(const Race& race, const int64_t* positions, int64_t count, double* keys) {
    const int64_t parts = parts_of(count, race.threads, 1 << 12);
    for_blocks(count, parts, race.threads, [&](int64_t, int64_t first, int n) {
        if (!positions) return keys_of(race, first, n, keys + first);
        const int64_t next = first + kBlock, n_next = std::min<int64_t>(kBlock, count - next);
        Gathered::prefetch(race.mean, positions + next, n_next);
        Gathered::prefetch(race.score, positions + next, n_next);
        Gathered gathered;
        keys_of(gathered.race(race, positions + first, n), 0, n, keys + first);
    });
}

}  // namespace dualfast
