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
constexpr int kBlock = 256;          // samples whose intermediate columns stay in the first-level cache

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
        const double log_score = log_of(normal) - (normal == x ? 0.0 : 37.42994775023705);
        keys[i] -= x > 0 ? log_score : -kZeroWeight;
    }
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
    for (int i = 0; i < n; ++i) {
        // (0, 1): 53 random bits and a half; put together so that no 64-bit integer is converted.
        const double u = (word0[i] * 4294967296.0 + (word1[i] & 0xFFFFF800u) + 1024.0) * 5.421010862427522e-20;
        keys[i] = log_of(-log_of(u));
    }
    if (race.score.data) WITH_TYPE(race.score, first, add_log_score(from, n, keys));
    if (race.mean.data) WITH_TYPE(race.mean, first, add_log_beta(from, n, race.a, race.b, keys));
}

AT_LEVELS(void, keys_of, (const Race& race, int64_t first, int n, double* keys), (race, first, n, keys))

// ---- the race in float32 ----
//
// Keys in units of log 2. Errors, absolute: rough_log2 of a column stays within 1e-5 (7.4e-6 relative of the polynomial
// times 1/2, rounding to 20 or 24 bits, and of exponent plus fraction, which is at most 1024 + 1 for a score);
// log2(-log2 u) within 3e-4, as samples whose u is closer than 2^-16 to 0 or 1 are left open (there 1 - u is known to
// 2^-15, or u to 2^-9 and its logarithm to 2^-12). Sums round by 2^-24 of their size, at most 4,000 + 40 (|a-1| +
// |b-1|). The slack is several times all that together.
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")  // what is only a bound may use what the processor has
INLINE float slack_of(const Race& race) {
    const double powers = race.mean.data ? std::abs(race.a - 1.0) + std::abs(race.b - 1.0) : 0.0;
    return static_cast<float>(2e-3 + 1e-4 * powers);
}

INLINE float bits_to_float(int32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// log2(1 + f) for sqrt(1/2) <= 1 + f <= sqrt(2), relative error 7.4e-6: minimax fit of log2(1 + f) / f. In pairs, so
// that a product waits for three others, not for six.
INLINE float rough_log2_1p(float f) {
    const float ff = f * f;
    const float high = (-0.20619085f * f + 0.31819984f) * ff + (-0.36649173f * f + 0.47981185f);
    return (high * ff + (-0.72120637f * f + 1.4427016f)) * f;
}

// x positive and normal; of a double the high word alone counts.
INLINE float rough_log2(float x) {
    int32_t bits;
    std::memcpy(&bits, &x, 4);
    const int32_t e = (bits - 0x3F3504F3) >> 23;
    return static_cast<float>(e) + rough_log2_1p(bits_to_float(bits - (e << 23)) - 1.0f);
}

INLINE float rough_log2(double x) {
    uint64_t bits;
    std::memcpy(&bits, &x, 8);
    const auto high = static_cast<int32_t>(bits >> 32);
    const int32_t e = (high - 0x3FE6A09E) >> 20;
    const int32_t m = ((high - (e << 20) - 0x3FE00000) << 3) + 0x3F000000;
    return static_cast<float>(e) + rough_log2_1p(bits_to_float(m) - 1.0f);
}

constexpr float kUnsure = std::numeric_limits<float>::quiet_NaN();  // neither below low nor above high

INLINE void rough_race(const uint32_t* word0, int n, float* keys) {
    for (int i = 0; i < n; ++i) {
        const auto top = static_cast<int32_t>(~word0[i] >> 1);
        const float y = static_cast<float>(top) * 0x1p-31f + 0x1p-32f, x = 1.0f - y;  // 1 - u and u
        int32_t bits;
        std::memcpy(&bits, &x, 4);
        const int32_t e = (bits - 0x3F3504F3) >> 23;
        const float f = e == 0 ? -y : bits_to_float(bits - (e << 23)) - 1.0f;  // -y: exact near 1
        const float wait = -(static_cast<float>(e) + rough_log2_1p(f));
        keys[i] = std::abs(top - (1 << 30)) > (1 << 30) - (1 << 15) ? kUnsure : wait;
    }
    // A loop of its own: together the chain of operations is too long for the processor to work on several samples.
    for (int i = 0; i < n; ++i) keys[i] = keys[i] > 0 ? rough_log2(keys[i]) : kUnsure;
}

template <class T>
INLINE int add_rough_score(const T* score, int n, float* keys) {
    constexpr auto kZero = static_cast<float>(kZeroWeight * 1.4426950408889634);
    int bad = 0;
    for (int i = 0; i < n; ++i) {
        const T x = score[i];
        bad |= !(x >= 0) | !(x <= std::numeric_limits<T>::max());
        const float log_score = x < std::numeric_limits<T>::min() ? kUnsure : rough_log2(x);
        keys[i] -= x == 0 ? -kZero : log_score;
    }
    return bad;
}

template <class T>
INLINE int add_rough_beta(const T* mean, int n, float a1, float b1, float* keys) {
    constexpr auto kEdge = static_cast<T>(kMeanEdge);
    int bad = 0;
    for (int i = 0; i < n; ++i) {
        const T x = mean[i], y = 1 - x;
        bad |= !(x >= 0) | !(y >= 0);
        keys[i] -= a1 * rough_log2(x > kEdge ? x : kEdge) + b1 * rough_log2(y > kEdge ? y : kEdge);
    }
    return bad;
}

// Asks for the next block of a column, lest the next call wait for it: the processor looks ahead within a page alone.
INLINE void prefetch(const Column& column, int64_t first, int64_t count) {
    const int64_t width = column.wide ? 8 : 4;
    const auto* from = static_cast<const char*>(column.data);
    if (!from) return;
    const int64_t end = std::min(first + kBlock, count) * width;
    for (int64_t at = first * width; at < end; at += 64) __builtin_prefetch(from + at);
}

// state[i] = 1: surely below low, 2: open, 0: surely above high. Not 0 where a sample is bad.
INLINE int sift_block_at_level(const Race& race, int64_t first, int n, float low, float high, uint8_t* state) {
    uint32_t words[4 * kBlock];
    float keys[kBlock];
    prefetch(race.score, first + n, race.count);
    prefetch(race.mean, first + n, race.count);
    rough_race(words_of(race, first, n, 0, words), n, keys);
    int bad = 0;
    if (race.score.data) WITH_TYPE(race.score, first, bad |= add_rough_score(from, n, keys));
    if (race.mean.data) {
        const auto a1 = static_cast<float>(race.a - 1.0), b1 = static_cast<float>(race.b - 1.0);
        WITH_TYPE(race.mean, first, bad |= add_rough_beta(from, n, a1, b1, keys));
    }
    for (int i = 0; i < n; ++i) {
        const int below = keys[i]<low, above = keys[i]> high;
        state[i] = static_cast<uint8_t>(below | (!(below | above)) << 1);
    }
    return bad;
}

AT_LEVELS(int, sift_block, (const Race& race, int64_t first, int n, float low, float high, uint8_t* state),
          (race, first, n, low, high, state))
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
                keys_of(gathered.race(race, where + first, n), 0, n, keys + first);
            } else {
                keys_of(race, first, n, keys + first);
            }
        }
    });
}

Sifted sift(const Race& race, double low, double high, uint8_t* bits) {
    const double log_log2 = std::log(std::log(2.0));
    const float slack = slack_of(race);
    const auto rough_low = static_cast<float>((low - log_log2) / std::log(2.0)) - slack;
    const auto rough_high = static_cast<float>((high - log_log2) / std::log(2.0)) + slack;
    const int64_t blocks = (race.count + kBlock - 1) / kBlock;
    const int64_t parts = parts_of(race.count, race.threads);
    std::vector<Sifted> found(static_cast<size_t>(parts), Sifted{0, -1, {}});
    for_parts(parts, race.threads, [&](int64_t part) {
        Sifted& mine = found[static_cast<size_t>(part)];
        for (int64_t block = blocks * part / parts; block < blocks * (part + 1) / parts; ++block) {
            const int64_t first = block * kBlock;
            const int n = static_cast<int>(std::min<int64_t>(kBlock, race.count - first));
            uint8_t state[kBlock] = {};
            if (sift_block(race, first, n, rough_low, rough_high, state) && mine.bad < 0) {
                mine.bad = first_bad(race, first, first + n);
            }
            for (int i = 0; i < n; i += 8) {
                constexpr uint64_t kOnes = 0x0101010101010101;
                uint64_t eight;
                std::memcpy(&eight, state + i, 8);
                bits[(first + i) / 8] = static_cast<uint8_t>((eight & kOnes) * 0x0102040810204080 >> 56);
                mine.kept += static_cast<int64_t>((eight & kOnes) * kOnes >> 56);
                for (uint64_t left = eight & ~kOnes; left; left &= left - 1) {
                    mine.open.push_back(first + i + __builtin_ctzll(left) / 8);
                }
            }
        }
    });
    Sifted all{0, -1, {}};
    for (const Sifted& part : found) {
        all.kept += part.kept;
        if (all.bad < 0) all.bad = part.bad;
        all.open.insert(all.open.end(), part.open.begin(), part.open.end());
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
            const bool full = static_cast<int64_t>(mine.size()) == k;
            if (full && !any_above(column, first, static_cast<int>(last - first), -mine.back().first)) continue;
            for (int64_t i = first; i < last; ++i) {
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
