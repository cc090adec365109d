// One sample's state: a line of 32-bit words, 16 of them (64 bytes) for a window of up to 10 visits.
//   words 0 .. J-2   ring of the J-1 previous true-class probabilities; visit k is written to slot k mod (J-1)
//   the last seven   sum of window dual | sum of window std | sum p | sum of logit margins | sum of EL2N over the first
//                    ten visits | entropy of the last visit | packed counters
// Packed counters: bits 0-11 visits, 12-23 forgetting events, 24 last correct, 25 ever learned, 26-31 skipped visits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "levels.h"

namespace dualfast {

constexpr int kEl2nVisits = 10;
constexpr int kMaxVisits = 0xFFF;
constexpr int kMaxSkipped = 0x3F;

struct Line {
    int words;   // length of a line, a multiple of 16
    int window;  // J
    int limit;   // visits after this many are not folded in
};

struct Observation {
    float p, margin, el2n, entropy;
    bool correct, finite;
};

using Four = float __attribute__((vector_size(16)));
using Pick = int32_t __attribute__((vector_size(16)));

// The sum of of(word) over the ring. Four words at a time, and what follows the ring in its last four left out: the
// order of the sum is the same on every processor.
template <class Of>
INLINE float ring_sum(const int32_t* line, int ring, const Of& of) {
    Four total = {};
    for (int j = 0; j < ring; j += 4) {
        Four past;
        std::memcpy(&past, line + j, sizeof past);
        const Four term = of(past);
        total += Pick{0, 1, 2, 3} < ring - j ? term : Four{};
    }
    return (total[0] + total[1]) + (total[2] + total[3]);
}

// Folds one visit into its line; false when it was skipped (not finite) or came after the limit.
INLINE bool fold(int32_t* line, const Line& layout, const Observation& seen) {
    int32_t* tail = line + layout.words - 7;
    auto add = [tail](int word, float value) {
        float sum;
        std::memcpy(&sum, tail + word, 4);
        sum += value;
        std::memcpy(tail + word, &sum, 4);
    };
    uint32_t packed = static_cast<uint32_t>(tail[6]);
    const int visits = packed & 0xFFF, ring = layout.window - 1;
    if (!seen.finite) {
        if ((packed >> 26) < kMaxSkipped) tail[6] = static_cast<int32_t>(packed + (1u << 26));
        return false;
    }
    if (visits >= layout.limit) return false;
    if (visits >= ring) {
        // Two passes over the ring: a running sum of squares loses the small variances to cancellation.
        const float mean =
            (seen.p + ring_sum(line, ring, [](Four past) { return past; })) / static_cast<float>(layout.window);
        const float squares = ring_sum(line, ring, [mean](Four past) { return (past - mean) * (past - mean); });
        const float last = seen.p - mean;
        const float std = std::sqrt((squares + last * last) / static_cast<float>(ring));
        add(0, std * (1 - mean));
        add(1, std);
    }
    std::memcpy(line + visits % ring, &seen.p, 4);
    add(2, seen.p);
    add(3, seen.margin);
    if (visits < kEl2nVisits) add(4, seen.el2n);
    std::memcpy(tail + 5, &seen.entropy, 4);
    const uint32_t was = (packed >> 24) & 1, ever = (packed >> 25) & 1, correct = seen.correct;
    const uint32_t forgotten = std::min<uint32_t>(((packed >> 12) & 0xFFF) + (was & ~correct & 1), 0xFFF);
    packed = (packed & 0xFC000000u) | static_cast<uint32_t>(visits + 1) | forgotten << 12 | correct << 24 |
             (ever | correct) << 25;
    tail[6] = static_cast<int32_t>(packed);
    return true;
}

}  // namespace dualfast
