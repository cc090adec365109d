#include "philox.h"

#include <algorithm>

#include "levels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in that header: GCC bug 105593
#endif
#endif

namespace dualfast {
namespace {

constexpr uint32_t kOrderStream = 0x6F726472;  // "ordr"

void words_one_by_one(const PhiloxBlock& block, int first) {
    for (int i = first; i < block.count; ++i) {
        const Philox words = philox4x32(block.ids[i], block.epoch, block.stream, block.seed);
        std::copy(words.begin(), words.end(), block.words + 4 * i);
    }
}

void words_v1(const PhiloxBlock& block) { words_one_by_one(block, 0); }

#if defined(__x86_64__)
// Intrinsics, because before AVX-512 GCC recognizes the 32 x 32 -> 64 bit product in no loop. One counter per 64-bit
// lane; the product reads only the low halves, so the blends at the end are the first to clear the high ones. kGroups
// vectors are interleaved, as each round depends on the one before.
constexpr int kGroups = 2;
#define ROUNDS(mul, set, xor3, shift)                                                        \
    do {                                                                                     \
        uint32_t k0 = static_cast<uint32_t>(block.seed);                                     \
        uint32_t k1 = static_cast<uint32_t>(block.seed >> 32);                               \
        for (int round = 0; round < 10; ++round) {                                           \
            _Pragma("GCC unroll 8") for (int g = 0; g < kGroups; ++g) {                      \
                const auto a = mul(c0[g], set(0xD2511F53)), b = mul(c2[g], set(0xCD9E8D57)); \
                c0[g] = xor3(shift(b, 32), c1[g], set(k0));                                  \
                c2[g] = xor3(shift(a, 32), c3[g], set(k1));                                  \
                c1[g] = b;                                                                   \
                c3[g] = a;                                                                   \
            }                                                                                \
            k0 += 0x9E3779B9;                                                                \
            k1 += 0xBB67AE85;                                                                \
        }                                                                                    \
    } while (false)

TARGET_V4 void words_v4(const PhiloxBlock& block) {
    int i = 0;
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    for (; i + 8 * kGroups <= block.count; i += 8 * kGroups) {
        __m512i c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
        for (int g = 0; g < kGroups; ++g) {
            c0[g] = _mm512_loadu_si512(block.ids + i + 8 * g);
            c1[g] = _mm512_srli_epi64(c0[g], 32);
            c2[g] = _mm512_set1_epi64(block.epoch);
            c3[g] = _mm512_set1_epi64(block.stream);
        }
#define XOR3(x, y, z) _mm512_ternarylogic_epi64(x, y, z, 0x96)
        ROUNDS(_mm512_mul_epu32, _mm512_set1_epi64, XOR3, _mm512_srli_epi64);
#undef XOR3
        for (int g = 0; g < kGroups; ++g) {
            const __m512i c01 = _mm512_mask_blend_epi32(0xAAAA, c0[g], _mm512_slli_epi64(c1[g], 32));
            const __m512i c23 = _mm512_mask_blend_epi32(0xAAAA, c2[g], _mm512_slli_epi64(c3[g], 32));
            const __m512i even = _mm512_unpacklo_epi64(c01, c23), odd = _mm512_unpackhi_epi64(c01, c23);
            uint32_t* to = block.words + 4 * (i + 8 * g);
            _mm512_storeu_si512(to, _mm512_permutex2var_epi64(even, first, odd));
            _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi64(even, second, odd));
        }
    }
    words_one_by_one(block, i);
}

TARGET_V3 void words_v3(const PhiloxBlock& block) {
    int i = 0;
    for (; i + 4 * kGroups <= block.count; i += 4 * kGroups) {
        __m256i c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
        for (int g = 0; g < kGroups; ++g) {
            c0[g] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block.ids + i + 4 * g));
            c1[g] = _mm256_srli_epi64(c0[g], 32);
            c2[g] = _mm256_set1_epi64x(block.epoch);
            c3[g] = _mm256_set1_epi64x(block.stream);
        }
#define XOR3(x, y, z) _mm256_xor_si256(_mm256_xor_si256(x, y), z)
        ROUNDS(_mm256_mul_epu32, _mm256_set1_epi64x, XOR3, _mm256_srli_epi64);
#undef XOR3
        for (int g = 0; g < kGroups; ++g) {
            const __m256i c01 = _mm256_blend_epi32(c0[g], _mm256_slli_epi64(c1[g], 32), 0xAA);
            const __m256i c23 = _mm256_blend_epi32(c2[g], _mm256_slli_epi64(c3[g], 32), 0xAA);
            const __m256i even = _mm256_unpacklo_epi64(c01, c23), odd = _mm256_unpackhi_epi64(c01, c23);
            auto* to = reinterpret_cast<__m256i*>(block.words + 4 * (i + 4 * g));
            _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
            _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
        }
    }
    words_one_by_one(block, i);
}

#endif

CHOOSE_LEVEL(void, words, (const PhiloxBlock& block), (block))

}  // namespace

void philox_words(const PhiloxBlock& block) { words(block); }

void order_keys(const int64_t* ids, size_t n, uint64_t seed, uint32_t epoch, uint64_t* keys) {
    for (size_t i = 0; i < n; ++i) {
        const Philox words = philox4x32(static_cast<uint64_t>(ids[i]), epoch, kOrderStream, seed);
        keys[i] = static_cast<uint64_t>(words[1]) << 32 | words[0];
    }
}

}  // namespace dualfast
