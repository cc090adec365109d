#include "select.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "philox.h"

#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

namespace dualfast {
namespace {

constexpr uint32_t kSelectStream = 0x53454C45;
constexpr double kMeanEdge = 1e-12;  // a mean of 0 or 1 makes the Beta density 0 or infinite

// fdlibm's series in a fixed order of operations; no branch, so that loops over it become vector code.
inline double log_of(double x) {
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

// (0, 1): 53 random bits and a half.
inline double uniform(uint64_t seed, uint64_t id) {
    const Philox random = philox4x32(id, 0, kSelectStream, seed);
    const uint64_t bits = static_cast<uint64_t>(random[0]) << 21 | random[1] >> 11;
    return (static_cast<double>(bits) + 0.5) * 1.1102230246251565e-16;
}

CLONES void keys_of(const Race& race, double* keys, int64_t first, int64_t last) {
    const double none = std::numeric_limits<double>::infinity();
    for (int64_t i = first; i < last; ++i) {
        const uint64_t id = static_cast<uint64_t>(race.ids ? race.ids[i] : i);
        keys[i] = log_of(-log_of(uniform(race.seed, id)));
    }
    if (race.score) {
        for (int64_t i = first; i < last; ++i) {
            const double score = race.score[i];
            const double normal = score < 2.2250738585072014e-308 ? score * 18014398509481984.0 : score;
            const double log_score = log_of(normal) - (normal == score ? 0.0 : 37.42994775023705);
            keys[i] = score > 0 ? keys[i] - log_score : none;
        }
    }
    if (race.mean) {
        for (int64_t i = first; i < last; ++i) {
            const double mean = std::min(std::max(race.mean[i], kMeanEdge), 1.0 - kMeanEdge);
            keys[i] -= (race.a - 1.0) * log_of(mean) + (race.b - 1.0) * log_of(1.0 - mean);
        }
    }
}

// Doubles in ascending order as unsigned integers.
inline uint64_t ordered(double x) {
    uint64_t bits;
    x += 0.0;  // -0 and 0 are one key
    std::memcpy(&bits, &x, 8);
    return bits ^ (bits >> 63 ? ~0ull : 1ull << 63);
}

constexpr int64_t kChunk = 1 << 14;

}  // namespace

double portable_log(double x) { return x > 0 ? log_of(x) : -std::numeric_limits<double>::infinity(); }

void race_keys(const Race& race, double* keys) {
    const int64_t chunks = (race.count + kChunk - 1) / kChunk;
#pragma omp parallel for schedule(static) num_threads(race.threads) if (chunks > 1)
    for (int64_t c = 0; c < chunks; ++c) {
        keys_of(race, keys, c * kChunk, std::min(race.count, (c + 1) * kChunk));
    }
}

void smallest(const double* keys, int64_t count, int64_t n, int64_t* out, int threads) {
    if (n == 0) return;
    constexpr int kBits = 16;
    const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(threads, count / kChunk));
    auto edge = [=](int64_t c) { return count * c / chunks; };
    std::vector<std::vector<int64_t>> histogram(static_cast<size_t>(chunks), std::vector<int64_t>(1 << kBits));
#pragma omp parallel for schedule(static) num_threads(threads) if (chunks > 1)
    for (int64_t c = 0; c < chunks; ++c) {
        int64_t* bins = histogram[static_cast<size_t>(c)].data();
        for (int64_t i = edge(c); i < edge(c + 1); ++i) ++bins[ordered(keys[i]) >> (64 - kBits)];
    }
    uint64_t bin = 0;
    int64_t below = 0;
    for (;; ++bin) {
        int64_t here = 0;
        for (const auto& bins : histogram) here += bins[bin];
        if (below + here >= n) break;
        below += here;
    }
    // Inside the bin that holds the threshold: (key, position) pairs, the few smallest of them.
    std::vector<std::vector<std::pair<uint64_t, int64_t>>> found(static_cast<size_t>(chunks));
#pragma omp parallel for schedule(static) num_threads(threads) if (chunks > 1)
    for (int64_t c = 0; c < chunks; ++c) {
        for (int64_t i = edge(c); i < edge(c + 1); ++i) {
            const uint64_t key = ordered(keys[i]);
            if (key >> (64 - kBits) == bin) found[static_cast<size_t>(c)].emplace_back(key, i);
        }
    }
    std::vector<std::pair<uint64_t, int64_t>> border;
    for (const auto& part : found) border.insert(border.end(), part.begin(), part.end());
    const auto last = border.begin() + (n - below - 1);
    std::nth_element(border.begin(), last, border.end());
    const std::pair<uint64_t, int64_t> threshold = *last;
    auto kept = [&](int64_t i) { return std::make_pair(ordered(keys[i]), i) <= threshold; };
    std::vector<int64_t> start(static_cast<size_t>(chunks) + 1);
#pragma omp parallel for schedule(static) num_threads(threads) if (chunks > 1)
    for (int64_t c = 0; c < chunks; ++c) {
        int64_t mine = 0;
        for (int64_t i = edge(c); i < edge(c + 1); ++i) mine += kept(i);
        start[static_cast<size_t>(c) + 1] = mine;
    }
    for (size_t c = 0; c + 1 < start.size(); ++c) start[c + 1] += start[c];
#pragma omp parallel for schedule(static) num_threads(threads) if (chunks > 1)
    for (int64_t c = 0; c < chunks; ++c) {
        int64_t at = start[static_cast<size_t>(c)];
        for (int64_t i = edge(c); i < edge(c + 1); ++i) {
            if (kept(i)) out[at++] = i;
        }
    }
}

}  // namespace dualfast
