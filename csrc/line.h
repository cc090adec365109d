// The update of a sample's line by one visit. csrc/line_layout.h has the words of a line.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "levels.h"
#include "line_layout.h"

namespace dualfast {

struct Line {
    int words;   // length of a line, a multiple of kLineWords
    int window;  // J
    int limit;   // later visits are not folded in
};

struct Observation {
    float p, margin, el2n, entropy;
    bool correct, finite;
};

using Float4 = float __attribute__((vector_size(16)));
using Int4 = int32_t __attribute__((vector_size(16)));

// The sum of term(word) over the ring, four words at a time; what follows the ring in the last four is left out. The
// order of the sum is the same on every processor.
template <class Term>
INLINE float ring_sum(const int32_t* line, int ring, const Term& term) {
    Float4 total = {};
    for (int j = 0; j < ring; j += 4) {
        Float4 past;
        std::memcpy(&past, line + j, sizeof past);
        const Float4 value = term(past);
        total += Int4{0, 1, 2, 3} < ring - j ? value : Float4{};
    }
    return (total[0] + total[1]) + (total[2] + total[3]);
}

INLINE int visits(const int32_t* line, const Line& layout) {
    return static_cast<int>(kVisits.of(static_cast<uint32_t>(line[layout.words - kTailWords + kCounters])));
}

// Folds one visit into its line; false when it was skipped (not finite) or came after the limit.
INLINE bool fold(int32_t* line, const Line& layout, const Observation& seen) {
    int32_t* tail = line + layout.words - kTailWords;
    auto add = [tail](int word, float value) {
        float sum;
        std::memcpy(&sum, tail + word, 4);
        sum += value;
        std::memcpy(tail + word, &sum, 4);
    };
    const auto packed = static_cast<uint32_t>(tail[kCounters]);
    const int visits = static_cast<int>(kVisits.of(packed)), ring = layout.window - 1;
    if (!seen.finite) {
        if (kSkipped.of(packed) < kSkipped.max) tail[kCounters] = static_cast<int32_t>(packed + kSkipped.at(1));
        return false;
    }
    if (visits >= layout.limit) return false;
    if (visits >= ring) {
        // Two passes over the ring: a running sum of squares loses small variances to cancellation.
        const float mean =
            (seen.p + ring_sum(line, ring, [](Float4 past) { return past; })) / static_cast<float>(layout.window);
        const float squares = ring_sum(line, ring, [mean](Float4 past) { return (past - mean) * (past - mean); });
        const float last = seen.p - mean;
        const float std = std::sqrt((squares + last * last) / static_cast<float>(ring));
        add(kDualSum, std * (1 - mean));
        add(kStdSum, std);
    }
    std::memcpy(line + visits % ring, &seen.p, 4);
    add(kPSum, seen.p);
    add(kMarginSum, seen.margin);
    if (visits < kEl2nVisits) add(kEl2nSum, seen.el2n);
    std::memcpy(tail + kEntropy, &seen.entropy, 4);
    const uint32_t correct = seen.correct, forgets = kLastCorrect.of(packed) & ~correct & 1;
    const uint32_t counters = kVisits.at(static_cast<uint32_t>(visits + 1)) |
                              kForgotten.at(std::min(kForgotten.of(packed) + forgets, kForgotten.max)) |
                              kLastCorrect.at(correct) | kEverCorrect.at(kEverCorrect.of(packed) | correct) |
                              kSkipped.at(kSkipped.of(packed));
    tail[kCounters] = static_cast<int32_t>(counters);
    return true;
}

// A vote after one more visit, which names top_other: Boyer and Moore's, so that a class that more than half of the
// visits named is elected.
INLINE int32_t vote(int32_t word, int32_t top_other) {
    const auto packed = static_cast<uint32_t>(word), given = static_cast<uint32_t>(top_other);
    if (kVoteCount.of(packed) == 0) return static_cast<int32_t>(kVoteClass.at(given) | kVoteCount.at(1));
    const bool again = kVoteClass.of(packed) == given;
    return static_cast<int32_t>(again ? packed + kVoteCount.at(1) : packed - kVoteCount.at(1));
}

}  // namespace dualfast
