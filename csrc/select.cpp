#include "select.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "levels.h"
#include "parallel.h"
#include "philox.h"

namespace dualfast {
namespace {

constexpr uint32_t kSelectStream = 0x53454C45;
constexpr double kMeanEdge = 1e-12;  // a mean of 0 or 1 makes the Beta density 0 or infinite
constexpr int kBlock = 512;          // samples whose intermediate columns stay in the first-level cache

// fdlibm's series in a fixed order of operations; no branch, so that loops over it become vector code.
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

// 32 random bits of each of n samples: the upper ones of its u (part 0), or the lower (part 1). A sample's word is
// number id mod 4 of the Philox block (id / 4, part), so that neighbours share the work of one. `words` has room for
// 4 * kBlock; they begin where the returned pointer says.
INLINE const uint32_t* words_of(const Race& race, int64_t first, int n, uint32_t part, uint32_t* words) {
    uint64_t counters[kBlock + 1];
    if (!race.ids) {
        const auto id = static_cast<uint64_t>(race.first + first);
        const int blocks = static_cast<int>((id + static_cast<uint64_t>(n) + 3) / 4 - id / 4);
        for (int i = 0; i < blocks; ++i) counters[i] = id / 4 + static_cast<uint64_t>(i);
        philox_words({counters, blocks, part, kSelectStream, race.seed, words});
        return words + id % 4;
    }
    const int64_t* ids = race.ids + first;
    for (int i = 0; i < n; ++i) counters[i] = static_cast<uint64_t>(ids[i]) / 4;
    philox_words({counters, n, part, kSelectStream, race.seed, words});
    for (int i = 0; i < n; ++i) words[i] = words[4 * i + static_cast<int>(ids[i] & 3)];
    return words;
}

template <class T>
INLINE void add_log_score(const T* score, int n, double* keys) {
    for (int i = 0; i < n; ++i) {
        const auto x = static_cast<double>(score[i]);
        const double normal = x < 2.2250738585072014e-308 ? x * 18014398509481984.0 : x;
        keys[i] -= log_of(normal) - (normal == x ? 0.0 : 37.42994775023705);
    }
}

// Where there is no weight a race of its own: uniform, far behind.
template <class T>
INLINE void put_behind(const T* score, int n, const double* waits, double* keys) {
    for (int i = 0; i < n; ++i) keys[i] = score[i] > 0 ? keys[i] : waits[i] + kZeroWeight;
}

template <class T>
INLINE void add_log_beta(const T* mean, int n, double a, double b, double* keys) {
    for (int i = 0; i < n; ++i) {
        const auto m = static_cast<double>(mean[i]);
        keys[i] -= (a - 1.0) * log_of(std::max(m, kMeanEdge)) + (b - 1.0) * log_of(std::max(1.0 - m, kMeanEdge));
    }
}

// call with `from`, the values of the column from `at` on, in their type.
#define WITH_TYPE(column, at, call)                                              \
    do {                                                                         \
        if ((column).wide) {                                                     \
            const auto* from = static_cast<const double*>((column).data) + (at); \
            call;                                                                \
        } else {                                                                 \
            const auto* from = static_cast<const float*>((column).data) + (at);  \
            call;                                                                \
        }                                                                        \
    } while (false)

INLINE void keys_of_at_level(const Race& race, int64_t first, int n, double* keys) {
    uint32_t words0[4 * kBlock], words1[4 * kBlock];
    const uint32_t* word0 = words_of(race, first, n, 0, words0);
    const uint32_t* word1 = words_of(race, first, n, 1, words1);
    double waits[kBlock];
    for (int i = 0; i < n; ++i) {
        // (0, 1): 53 random bits and a half; put together so that no 64-bit integer is converted.
        const double u = (word0[i] * 4294967296.0 + (word1[i] & 0xFFFFF800u) + 1024.0) * 5.421010862427522e-20;
        keys[i] = waits[i] = log_of(-log_of(u));
    }
    if (race.score.data) WITH_TYPE(race.score, first, add_log_score(from, n, keys));
    if (race.mean.data) WITH_TYPE(race.mean, first, add_log_beta(from, n, race.a, race.b, keys));
    if (race.score.data) WITH_TYPE(race.score, first, put_behind(from, n, waits, keys));
}

AT_LEVELS(void, keys_of, (const Race& race, int64_t first, int n, double* keys), (race, first, n, keys))

// ---- the race in float32 ----
//
// A sample stays when its wait, -log2 u, is below its weight times 2^bound: one logarithm and one power, where the key
// would take two logarithms more. Errors, in units of log2: of the wait 1e-4 (5e-5 relative of the polynomial, and as
// much of u, of which 20 to 32 bits are known), and near u = 1 what kNearOne allows for; of the power 1.1e-4; of each
// logarithm 9e-5 and of the sum of both 3e-5 of rounding, times the exponents |a-1| and |b-1|. The slack is three times
// all that together.
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")  // what is only a bound may use what the processor has
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

constexpr float kUnsure = std::numeric_limits<float>::quiet_NaN();  // neither below low nor above high
constexpr float kNearOne = 0x1p-23f;                                // u is rounded by 2^-25
constexpr uint32_t kFewBits = 1 << 12;                              // a word below this says too little of u

// -log2 u from the upper words of u.
INLINE void rough_waits(const uint32_t* word, int n, float* waits) {
    uint32_t lowest = kFewBits;
    for (int i = 0; i < n; ++i) {
        lowest = std::min(lowest, word[i]);
        const uint32_t bits = float_to_bits(static_cast<float>(static_cast<int32_t>(word[i] >> 1)));
        const int32_t e = static_cast<int32_t>(bits - 0x3F3504F3) >> 23;
        const float f = bits_to_float(bits - (static_cast<uint32_t>(e) << 23)) - 1.0f;  // sqrt(1/2) to sqrt(2), less 1
        // Minimax fit of log2(1 + f) / f.
        const float slope = (((0.25474668f * f - 0.39089091f) * f + 0.48530708f) * f - 0.72055511f) * f + 1.4426463f;
        waits[i] = static_cast<float>(31 - e) - f * slope;
    }
    for (int i = 0; lowest < kFewBits && i < n; ++i) waits[i] = word[i] < kFewBits ? kUnsure : waits[i];
}

// Adds power * log2(x) to a sum that holds power * kLogConstant already; x positive and normal. The bits of a float are
// its logarithm, but for a function of its mantissa.
constexpr double kLogConstant = -126.0 - 2.5128525374641812;
struct RoughLog2 {
    float scale, c1, c2, c3, c4;  // minimax fit of log2(m) - m for 1 <= m < 2, times the power
    explicit RoughLog2(double power)
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

// 2^x, no further than 2^125 either way.
constexpr float kMostPower = 125;
INLINE float rough_exp2(float x) {
    x = x < kMostPower ? x : kMostPower;
    x = x > -kMostPower ? x : -kMostPower;
    const float shifted = x + 12582912.0f;  // rounds to a whole number, which the lowest bits then hold
    const float f = x - (shifted - 12582912.0f);
    const float power = ((0.05517176f * f + 0.24261134f) * f + 0.69326097f) * f + 0.99992803f;
    return bits_to_float(float_to_bits(power) + (float_to_bits(shifted) << 23));
}

// Asks for the next block of a column, lest the next call wait for it: the processor looks ahead within a page alone.
INLINE void prefetch(const Column& column, int64_t first, int64_t count) {
    const int64_t width = column.wide ? 8 : 4;
    const auto* from = static_cast<const char*>(column.data);
    if (!from) return;
    const int64_t end = std::min(first + kBlock, count) * width;
    for (int64_t at = first * width; at < end; at += 64) __builtin_prefetch(from + at);
}

// The bounds of a race and what else is the same for all its blocks. Bounds are taken relative to one of them, `around`
// (0 where neither is finite).
struct Sieve {
    float low, high;  // as factors, with the slack
    float start;      // what a sum of logarithms begins with: around, in units of log2, and the constants of both
    bool zeros;       // weights of zero may lie within the bounds
    float behind;     // what stands for a weight of zero
    float error;      // a factor that the ratio of wait and weight is not further off than
    RoughLog2 log_mean, log_rest;

    Sieve(const Race& race, double low_key, double high_key) : log_mean(race.a - 1.0), log_rest(race.b - 1.0) {
        const double powers = race.mean.data ? std::abs(race.a - 1.0) + std::abs(race.b - 1.0) : 0.0;
        const double constants = race.mean.data ? (race.a + race.b - 2.0) * kLogConstant : 0.0;
        const double slack = 1e-3 + 3e-4 * powers, unit = std::log(2.0), log_unit = std::log(unit);
        const double around = std::isfinite(low_key) ? low_key : std::isfinite(high_key) ? high_key : log_unit;
        error = static_cast<float>(std::exp2(slack));
        low = static_cast<float>(std::exp2((low_key - around) / unit - slack));
        high = static_cast<float>(std::exp2((high_key - around) / unit + slack));
        start = static_cast<float>((around - log_unit) / unit + constants);
        zeros = high_key > kZeroWeight - 50.0;  // log(-log u) is above -37
        behind = static_cast<float>(std::exp2((around - log_unit - kZeroWeight) / unit));
    }
};

// What is known of the samples of a block.
struct Sifting {
    float waits[kBlock], powers[kBlock], weights[kBlock];
    uint32_t below[kBlock / 32];  // a bit a sample: surely below low
    int kept, n_open;             // how many of these, and how many neither that nor surely above high
    int64_t open[kBlock + 4];     // their positions
    float ratios[kBlock];

    // Wait over weight, or NaN where that has not the accuracy of Sieve::error.
    float ratio(int i) const {
        constexpr float kRange = 0x1p60f;
        const bool known =
            waits[i] > 4096 * kNearOne && std::abs(powers[i]) < 100 && weights[i] > 1 / kRange && weights[i] < kRange;
        return known ? waits[i] / weights[i] : kUnsure;
    }
};

// log2 of the weight without the score, plus the bound. True where a mean is not in [0, 1].
template <class T>
INLINE bool rough_powers(const Sieve& sieve, const T* mean, int n, float* powers) {
    constexpr int32_t kEdge = 0x2B8CBCCC;  // the bits of kMeanEdge
    uint32_t most = 0;
    for (int i = 0; i < n; ++i) {
        const uint32_t a = float_to_bits(static_cast<float>(mean[i])),
                       b = float_to_bits(static_cast<float>(1 - mean[i]));
        most = std::max(most, sizeof(T) == 4 ? a : std::max(a, b));  // also larger for what is negative or NaN
        const float sum = sieve.log_mean.add_to(sieve.start, std::max(static_cast<int32_t>(a), kEdge));
        powers[i] = sieve.log_rest.add_to(sum, std::max(static_cast<int32_t>(b), kEdge));
    }
    return most > float_to_bits(1.0f);
}

// The weights, times 2^bound. True where a score is not in [0, inf).
template <class T>
INLINE bool rough_weights(const Sieve& sieve, const T* score, int n, Sifting& block) {
    uint32_t most = 0;
    int32_t most_power = 0;
    for (int i = 0; i < n; ++i) {
        const auto x = static_cast<float>(score[i]);
        most = std::max(most, float_to_bits(x));
        most_power = std::max(most_power, static_cast<int32_t>(float_to_bits(block.powers[i])));
        block.weights[i] = rough_exp2(block.powers[i]) * x;
    }
    constexpr float kLarge = 0x1p100f;
    for (int i = 0; sieve.zeros && i < n; ++i) {
        if (score[i] == 0) block.weights[i] = sieve.behind, block.powers[i] = 0;
    }
    if (most > float_to_bits(kLarge) || most_power > static_cast<int32_t>(float_to_bits(100.0f))) {
        // Score and power may balance each other outside the range of float.
        for (int i = 0; i < n; ++i) {
            if (score[i] == 0 || (score[i] > 1 / kLarge && score[i] < kLarge)) continue;
            int exponent;
            const auto mantissa = static_cast<float>(std::frexp(score[i], &exponent));
            block.weights[i] = rough_exp2(block.powers[i] + static_cast<float>(exponent)) * mantissa;
        }
    }
    return most > float_to_bits(std::numeric_limits<float>::max());
}

INLINE int ctz(uint32_t bits) { return __builtin_ctzll(bits | uint64_t{1} << 32); }

INLINE bool sift_block_at_level(const Race& race, const Sieve& sieve, int64_t first, int n, Sifting& block) {
    uint32_t words[4 * kBlock];
    prefetch(race.score, first + n, race.count);
    prefetch(race.mean, first + n, race.count);
    rough_waits(words_of(race, first, n, 0, words), n, block.waits);
    bool odd = false;
    for (int i = 0; !race.mean.data && i < n; ++i) block.powers[i] = sieve.start;
    if (race.mean.data) WITH_TYPE(race.mean, first, odd |= rough_powers(sieve, from, n, block.powers));
    for (int i = 0; !race.score.data && i < n; ++i) block.weights[i] = rough_exp2(block.powers[i]);
    if (race.score.data) WITH_TYPE(race.score, first, odd |= rough_weights(sieve, from, n, block));
    for (int i = n; i < kBlock; ++i) block.waits[i] = INFINITY, block.weights[i] = -1;  // surely above
    block.kept = block.n_open = 0;
    for (int word = 0; word < kBlock / 32; ++word) {
        uint32_t below = 0, above = 0;
        for (int i = 0; i < 32; ++i) {
            const float wait = block.waits[32 * word + i], weight = block.weights[32 * word + i];
            below |= static_cast<uint32_t>(wait < weight * sieve.low - kNearOne) << i;
            above |= static_cast<uint32_t>(wait > weight * sieve.high + kNearOne) << i;
        }
        block.below[word] = below;
        block.kept += __builtin_popcount(below);
        uint32_t open = ~(below | above);
        const int n_open = __builtin_popcount(open);
        // Two without a question: more are rare, and a question costs more where its answer varies.
        int64_t* to = block.open + block.n_open;
        for (int i = 0; i < 2 || i < n_open; ++i, open &= open - 1) to[i] = first + 32 * word + ctz(open);
        block.n_open += n_open;
    }
    for (int i = 0; i < block.n_open; ++i) block.ratios[i] = block.ratio(static_cast<int>(block.open[i] - first));
    return odd;
}

AT_LEVELS(bool, sift_block, (const Race& race, const Sieve& sieve, int64_t first, int n, Sifting& block),
          (race, sieve, first, n, block))
#pragma GCC pop_options

template <class T>
int64_t first_bad(const T* from, int64_t first, int64_t last, T most) {
    while (first < last && from[first] >= 0 && from[first] <= most) ++first;
    return first;
}

int64_t first_bad(const Race& race, int64_t first, int64_t last) {
    if (race.score.data) {
        WITH_TYPE(race.score, 0,
                  last = first_bad(from, first, last, std::numeric_limits<std::decay_t<decltype(*from)>>::max()));
    }
    if (race.mean.data) WITH_TYPE(race.mean, 0, last = first_bad(from, first, last, std::decay_t<decltype(*from)>(1)));
    return last;
}

}  // namespace

double portable_log(double x) { return x > 0 ? log_of(x) : -std::numeric_limits<double>::infinity(); }

namespace {

// What the samples at some positions have, next to each other.
struct Gathered {
    int64_t ids[kBlock];
    double mean[kBlock], score[kBlock];

    static void ask_for(const Column& column, const int64_t* where, int64_t n) {
        const auto* from = static_cast<const char*>(column.data);
        for (int64_t i = 0; from && i < n; ++i) __builtin_prefetch(from + where[i] * (column.wide ? 8 : 4));
    }

    static Column of(const Column& column, const int64_t* where, int n, double* to) {
        if (!column.data) return {nullptr, true};
        WITH_TYPE(column, 0, for (int i = 0; i < n; ++i) to[i] = static_cast<double>(from[where[i]]));
        return {to, true};
    }
    Race race(const Race& of_all, const int64_t* where, int n) {
        for (int i = 0; i < n; ++i) ids[i] = of_all.ids ? of_all.ids[where[i]] : of_all.first + where[i];
        Race here = of_all;
        here.mean = of(of_all.mean, where, n, mean);
        here.score = of(of_all.score, where, n, score);
        here.ids = ids;
        return here;
    }
};

}  // namespace

void race_keys(const Race& race, const int64_t* where, int64_t count, double* keys) {
    const int64_t blocks = (count + kBlock - 1) / kBlock, parts = parts_of(count, race.threads, 1 << 12);
    for_parts(parts, race.threads, [&](int64_t part) {
        Gathered gathered;
        for (int64_t block = blocks * part / parts; block < blocks * (part + 1) / parts; ++block) {
            const int64_t first = block * kBlock;
            const int n = static_cast<int>(std::min<int64_t>(kBlock, count - first));
            if (where) {
                const int64_t next = first + kBlock, many = std::min<int64_t>(kBlock, count - next);
                gathered.ask_for(race.mean, where + next, many);
                gathered.ask_for(race.score, where + next, many);
                keys_of(gathered.race(race, where + first, n), 0, n, keys + first);
            } else {
                keys_of(race, first, n, keys + first);
            }
        }
    });
}

Sifted sift(const Race& race, double low, double high, uint8_t* bits, Fresh fresh) {
    const Sieve sieve(race, low, high);
    const int64_t blocks = (race.count + kBlock - 1) / kBlock;
    const int64_t parts = parts_of(race.count, race.threads);
    std::vector<Sifted> found(static_cast<size_t>(parts), Sifted{0, -1, {}, {}, sieve.error});
    for_parts(parts, race.threads, [&](int64_t part) {
        Sifted& mine = found[static_cast<size_t>(part)];
        int64_t page = fresh.bytes * (blocks * part / parts) / blocks;
        for (int64_t at = blocks * part / parts; at < blocks * (part + 1) / parts; ++at) {
            const int64_t first = at * kBlock;
            const int n = static_cast<int>(std::min<int64_t>(kBlock, race.count - first));
            Sifting block;
            if (sift_block(race, sieve, first, n, block) && mine.bad < 0) {
                const int64_t bad = first_bad(race, first, first + n);
                if (bad < first + n) mine.bad = bad;
            }
            std::memcpy(bits + first / 8, block.below, static_cast<size_t>((n + 7) / 8));
            mine.kept += block.kept;
            mine.open.insert(mine.open.end(), block.open, block.open + block.n_open);
            mine.ratios.insert(mine.ratios.end(), block.ratios, block.ratios + block.n_open);
            constexpr int64_t kPage = 4096;
            for (; page < fresh.bytes * (at + 1) / blocks; page += kPage) fresh.data[page] = 0;
        }
    });
    if (parts == 1) return std::move(found[0]);
    Sifted all{0, -1, {}, {}, sieve.error};
    size_t n_open = 0;
    for (const Sifted& part : found) n_open += part.open.size();
    all.open.reserve(n_open);
    all.ratios.reserve(n_open);
    for (const Sifted& part : found) {
        all.kept += part.kept;
        if (all.bad < 0) all.bad = part.bad;
        all.open.insert(all.open.end(), part.open.begin(), part.open.end());
        all.ratios.insert(all.ratios.end(), part.ratios.begin(), part.ratios.end());
    }
    return all;
}

namespace {

// Does any value of the block exceed the bound?
template <class T>
INLINE bool above(const T* from, int n, T bound) {
    int found = 0;
    for (int i = 0; i < n; ++i) found |= from[i] > bound;
    return found;
}
INLINE bool any_above_at_level(const Column& column, int64_t first, int n, double bound) {
    if (column.wide) return above(static_cast<const double*>(column.data) + first, n, bound);
    return above(static_cast<const float*>(column.data) + first, n, static_cast<float>(bound));
}
AT_LEVELS(bool, any_above, (const Column& column, int64_t first, int n, double bound), (column, first, n, bound))

}  // namespace

std::vector<int64_t> largest(Column column, int64_t count, int64_t k, int threads) {
    using Found = std::pair<double, int64_t>;  // minus the value, position: ascending is best first
    auto value = [&](int64_t i) {
        return column.wide ? static_cast<const double*>(column.data)[i] : static_cast<const float*>(column.data)[i];
    };
    const int64_t blocks = (count + kBlock - 1) / kBlock;
    const int64_t parts = parts_of(count, threads);
    std::vector<std::vector<Found>> best(static_cast<size_t>(parts));
    for_parts(parts, threads, [&](int64_t part) {
        std::vector<Found>& mine = best[static_cast<size_t>(part)];
        for (int64_t block = blocks * part / parts; block < blocks * (part + 1) / parts; ++block) {
            const int64_t first = block * kBlock, last = std::min(count, first + kBlock);
            prefetch(column, first + 4 * kBlock, count);
            const bool full = static_cast<int64_t>(mine.size()) == k;
            if (full && !any_above(column, first, static_cast<int>(last - first), -mine.back().first)) continue;
            for (int64_t i = first; i < last; ++i) {
                constexpr int64_t kFew = 32;
                if (full && i + kFew <= last && !any_above(column, i, kFew, -mine.back().first)) {
                    i += kFew - 1;
                    continue;
                }
                const Found here{-value(i), i};
                if (here.first != here.first) continue;
                if (static_cast<int64_t>(mine.size()) == k) {
                    if (here >= mine.back()) continue;
                    mine.pop_back();
                }
                mine.insert(std::upper_bound(mine.begin(), mine.end(), here), here);
            }
        }
    });
    std::vector<Found> all;
    for (const auto& part : best) all.insert(all.end(), part.begin(), part.end());
    std::sort(all.begin(), all.end());
    std::vector<int64_t> out;
    for (const Found& found : all) {
        if (static_cast<int64_t>(out.size()) < k) out.push_back(found.second);
    }
    return out;
}

namespace {

// places.of[b]: where the ones of the byte b are, the lowest first.
struct Places {
    int64_t of[256][8] = {};
    Places() {
        for (int byte = 0; byte < 256; ++byte) {
            for (int bit = 0, at = 0; bit < 8; ++bit) {
                if (byte >> bit & 1) of[byte][at++] = bit;
            }
        }
    }
};
const Places places;

INLINE int64_t ones_in_at_level(const uint8_t* bytes, int64_t first, int64_t last) {
    int64_t ones = 0;
    for (; first + 8 <= last; first += 8) {
        uint64_t eight;
        std::memcpy(&eight, bytes + first, 8);
        ones += __builtin_popcountll(eight);
    }
    for (; first < last; ++first) ones += __builtin_popcount(bytes[first]);
    return ones;
}
AT_LEVELS(int64_t, ones_in, (const uint8_t* bytes, int64_t first, int64_t last), (bytes, first, last))

// The places of the ones in bytes[first..last-1]: what fits between out and end.
INLINE void positions_of_at_level(const uint8_t* bytes, int64_t first, int64_t last, int64_t* __restrict out,
                                  const int64_t* end) {
    for (; first < last; ++first) {
        const int64_t* where = places.of[bytes[first]];
        const int64_t n = std::min<int64_t>(__builtin_popcount(bytes[first]), end - out);
        if (end - out >= 8) {  // as many may be written: the next ones go over what is too much
            for (int i = 0; i < 8; ++i) out[i] = 8 * first + where[i];
        } else {
            for (int64_t i = 0; i < n; ++i) out[i] = 8 * first + where[i];
        }
        out += n;
    }
}
AT_LEVELS(void, positions_of, (const uint8_t* bytes, int64_t first, int64_t last, int64_t* out, const int64_t* end),
          (bytes, first, last, out, end))

}  // namespace

std::pair<int64_t, std::vector<int64_t>> narrow(const int64_t* open, const float* ratios, int64_t count, float low,
                                                float high, uint8_t* bits) {
    std::vector<int64_t> doubtful(static_cast<size_t>(count));
    int64_t n = 0, n_sure = 0;
    for (int64_t i = 0; i < count; ++i) {
        const bool sure = ratios[i] < low;
        const bool over = ratios[i] > high;
        bits[open[i] / 8] |= static_cast<uint8_t>(sure << open[i] % 8);
        doubtful[static_cast<size_t>(n)] = open[i];
        n += !(sure | over);
        n_sure += sure;
    }
    doubtful.resize(static_cast<size_t>(n));
    return {n_sure, std::move(doubtful)};
}

void set_bits(uint8_t* bits, const int64_t* where, int64_t count) {
    for (int64_t i = 0; i < count; ++i) bits[where[i] / 8] |= static_cast<uint8_t>(1 << where[i] % 8);
}

void positions(const uint8_t* bits, int64_t bytes, int64_t n, int64_t* out, int threads) {
    const int64_t parts = parts_of(8 * bytes, threads);
    auto edge = [=](int64_t part) { return bytes * part / parts; };
    std::vector<int64_t> start(static_cast<size_t>(parts) + 1);
    for_parts(parts, threads,
              [&](int64_t part) { start[static_cast<size_t>(part) + 1] = ones_in(bits, edge(part), edge(part + 1)); });
    for (size_t part = 0; part + 1 < start.size(); ++part) start[part + 1] += start[part];
    for_parts(parts, threads, [&](int64_t part) {
        const int64_t begin = start[static_cast<size_t>(part)], end = start[static_cast<size_t>(part) + 1];
        positions_of(bits, edge(part), edge(part + 1), out + std::min(n, begin), out + std::min(n, end));
    });
}

}  // namespace dualfast
