// Philox4x32-10 (Salmon et al., SC 2011): four random words, a pure function of counter and key.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace dualfast {

using Philox = std::array<uint32_t, 4>;

// Counter (id low, id high, epoch, stream), key (seed low, seed high).
inline Philox philox4x32(uint64_t id, uint32_t epoch, uint32_t stream, uint64_t seed) {
    uint32_t c0 = static_cast<uint32_t>(id), c1 = static_cast<uint32_t>(id >> 32), c2 = epoch, c3 = stream;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t{0xD2511F53} * c0, b = uint64_t{0xCD9E8D57} * c2;
        c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
        c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
        c1 = static_cast<uint32_t>(b);
        c3 = static_cast<uint32_t>(a);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
    return {c0, c1, c2, c3};
}

// philox4x32 of many ids with vector instructions: words[4 * i + j] is word j of ids[i].
struct PhiloxBlock {
    const uint64_t* ids;
    int count;
    uint32_t epoch, stream;
    uint64_t seed;
    uint32_t* words;
};
void philox_words(const PhiloxBlock& block);

// 64-bit keys whose ascending order is the shuffle of (seed, epoch): a pure function of (seed, epoch, id).
void order_keys(const int64_t* ids, size_t n, uint64_t seed, uint32_t epoch, uint64_t* keys);

}  // namespace dualfast
