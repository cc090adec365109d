// Written by `python -m dualfast.ops.header` from dualfast/ops/layout.py, which explains the words. Do not edit.
#pragma once

#include <cstdint>

namespace dualfast {

struct BitField {
    int shift;
    uint32_t max;
    constexpr uint32_t of(uint32_t packed) const { return packed >> shift & max; }
    constexpr uint32_t at(uint32_t value) const { return value << shift; }
};

// Words of a line: how many, and places in its last kTailWords.
constexpr int kLineWords = 16;
constexpr int kTailWords = 7;
constexpr int kDualSum = 0;
constexpr int kStdSum = 1;
constexpr int kPSum = 2;
constexpr int kMarginSum = 3;
constexpr int kEl2nSum = 4;
constexpr int kEntropy = 5;
constexpr int kCounters = 6;
constexpr int kEl2nVisits = 10;

// Bits of the counters.
constexpr BitField kVisits{0, 0xFFF};
constexpr BitField kForgotten{12, 0xFFF};
constexpr BitField kLastCorrect{24, 0x1};
constexpr BitField kEverCorrect{25, 0x1};
constexpr BitField kSkipped{26, 0x3F};

// Bits of a vote.
constexpr BitField kVoteCount{0, 0xFFF};
constexpr BitField kVoteClass{12, 0xFFFFF};

// Words of the status.
constexpr int kStatusBadIndex = 0;
constexpr int kStatusBadTarget = 1;
constexpr int kStatusDuplicates = 2;
constexpr int kStatusNonFinite = 3;
constexpr int kStatusPaused = 4;
constexpr int kStatusFinished = 5;
constexpr int kStatusWords = 6;

// Rows of the observed values.
constexpr int kSeenP = 0;
constexpr int kSeenMargin = 1;
constexpr int kSeenEl2n = 2;
constexpr int kSeenEntropy = 3;

// Flags of an observation.
constexpr uint8_t kFlagCounted = 1;
constexpr uint8_t kFlagCorrect = 2;
constexpr uint8_t kFlagFolded = 4;
constexpr uint8_t kFlagWrongTarget = 8;

}  // namespace dualfast
