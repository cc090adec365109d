// Draws n of N samples: an exponential race on Philox numbers, or the n largest scores. The same samples for any number
// of threads and any processor. Bitmaps hold one bit per sample, the lowest bit of a byte first.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace dualfast {

// An array of float32 or float64, or null: no such column.
struct Column {
    const void* data;
    bool is_double;
};

// An exponential race: key_i = log(-log u_i) - log w_i with u_i from Philox4x32-10 of (seed, id). The n smallest keys
// are a draw without replacement with successive-sampling probabilities w (Efraimidis and Spirakis, 2006). Weight:
// w_i = score_i * mean_i^(a-1) * (1-mean_i)^(b-1), without a mean column score_i, without either 1. A sample of weight
// zero has the key kZeroWeightKey + log(-log u): after all others, in a uniform race of their own.
struct Race {
    Column mean, score;  // (count,)
    const int64_t* ids;  // (count,) or null: first, first + 1, ...
    int64_t first, count;
    double a, b;
    uint64_t seed;
    int threads;
};
constexpr double kZeroWeightKey = 2000.0;

// The keys (count,) of the samples at `positions` (count,), or, where that is null, of the first `count` samples.
void race_keys(const Race& race, const int64_t* positions, int64_t count, double* keys);

// Which samples may be drawn, each within its group. A sample whose bit in `allowed` is clear, or whose number is not
// below `count`, belongs to no group.
struct Groups {
    int64_t count = 1;
    const uint16_t* narrow = nullptr;  // (samples,) the number of each sample's group; or
    const int32_t* wide = nullptr;     // that; neither: all are in group 0
    const uint8_t* allowed = nullptr;  // bitmap or null: all

    bool numbered() const { return narrow || wide; }
};

// What float32 can decide about the race of each group against two bounds on the key. `classify` writes a bitmap of the
// samples whose key is certainly below `low` of their group; every sample whose key may lie in [low, high] is
// undecided; all others are above `high`. Which samples are undecided may differ between processors, but no sample is
// classified wrongly, so that a draw which settles the undecided ones by race_keys is the same everywhere.
// select_approx.h derives the error bounds.
struct Classified {
    std::vector<int64_t> n_below;    // bits set, of each group
    int64_t first_invalid;           // first position, of those in a group, with a score not in [0, inf) or a mean not
                                     // in [0, 1], or -1
    std::vector<int64_t> undecided;  // ascending positions
    std::vector<float> ratios;       // without numbers, of each undecided one: exp(key) divided by a common factor, or
                                     // NaN where unknown
    float error;                     // each ratio is known up to this factor, either way
};

// Memory that the caller writes later. Its pages are touched meanwhile, as their zeroing by the system, which waits for
// memory, overlaps with the arithmetic here.
struct PrefaultBuffer {
    char* data;
    int64_t bytes;
};
// low, high: of each group; origin: a key near most of them.
Classified classify(const Race& race, const Groups& groups, const double* low, const double* high, double origin,
                    uint8_t* bits, PrefaultBuffer prefault_buffer);

// Counts the keys of each group in `bins` intervals: counts (groups, bins), edges (bins + 1,) the keys between them,
// from low to high with -inf and inf at the ends. Float32 knows the keys up to the error that is returned.
double key_histogram(const Race& race, const Groups& groups, double low, double high, double origin, int64_t bins,
                     int64_t* counts, double* edges);

// Of the undecided samples with these keys, sets the bits of the missing[g] smallest of each group g, ties to the lower
// position. last[g] (groups,) is the largest key that was chosen, -inf for none, or NaN where the bounds did not
// contain the threshold: the bits of the group are then to be drawn again with wider ones.
void settle_groups(const Groups& groups, const int64_t* undecided, const double* keys, int64_t count,
                   const int64_t* missing, const double* low, const double* high, uint8_t* bits, double* last);

// How many samples each group has.
void count_groups(const Groups& groups, int64_t count, int threads, int64_t* sizes);

// Sets the bits of the undecided samples whose ratio is below low; returns how many these are, and the positions of
// those whose ratio may lie in [low, high].
std::pair<int64_t, std::vector<int64_t>> settle_by_ratio(const int64_t* undecided, const float* ratios, int64_t count,
                                                         float low, float high, uint8_t* bits);

// A column (count,) in order of its values, or against it, within each group; equal values in order of position. Values
// are taken as integers of the same order, less `base`.
struct Ranking {
    Column column;
    int64_t count;
    bool descending;
    uint64_t base;
    Groups groups;
    int threads;
};

// A step of a search for order statistics, which looks at `bits` of the integers from bit `shift` on:
// child[node << bits | digit] is the node of the next step, or -1 where none is needed. The nodes of the first step are
// the groups.
struct DigitLevel {
    int shift, bits;
    const int32_t* child;
};
// How many samples with each digit come to each of the nodes that the levels lead to: counts (nodes << bits,).
void digit_histogram(const Ranking& ranking, const std::vector<DigitLevel>& levels, int shift, int bits, int64_t nodes,
                     int64_t* counts);

// The samples that come to these nodes: ascending positions, and the node of each.
struct AtNodes {
    std::vector<int64_t> positions;
    std::vector<int32_t> nodes;
};
AtNodes at_nodes(const Ranking& ranking, const std::vector<DigitLevel>& levels);

// The smallest and the largest integer of each group among those not below `least` (groups,).
void extents(const Ranking& ranking, const uint64_t* least, uint64_t* low, uint64_t* high);

// Places between samples: keys and ties (groups, per_group), ascending. Below a cut are the samples of its group whose
// integer is smaller, and the first `ties` of those where it is equal.
struct Cuts {
    int64_t per_group;
    const uint64_t* keys;
    const int64_t* ties;
};
// Sets the bits of the samples below the cut of their group, and clears all others; one cut a group.
void mark_below(const Ranking& ranking, const Cuts& cuts, uint8_t* bits);

// Intervals of equal width from the `low` of each group: the last has all above it.
struct Bands {
    int64_t count;
    const double *low, *width;  // (groups,)
};
// Numbers the samples, in one of the arrays, by group and stratum: group * strata + stratum, or the largest number for
// none. Strata are what the cuts divide a group into; or the bands, for samples that are not below the only cut.
void stratify(const Ranking& ranking, const Cuts& cuts, const Bands* bands, uint16_t* narrow, int32_t* wide);

// How many values of a column (count,) lie outside [low, high] or are NaN, and the first position, or -1. Their bits
// are cleared, unless bits is null.
struct Outside {
    int64_t count, first;
};
Outside outside(Column column, int64_t count, double low, double high, int threads, uint8_t* bits);

// Writes labels (count,), int32 or int64, to numbers and returns how many there are of each, up to the largest; nothing
// where one does not fit: it is negative or above 65534.
std::vector<int64_t> number_labels(const int32_t* narrow, const int64_t* wide, int64_t count, int threads,
                                   uint16_t* numbers);

// Positions of the k largest values, largest first; ties go to the lower position, NaN is skipped. Meant for a small k.
std::vector<int64_t> largest(Column column, int64_t count, int64_t k, int threads);

int64_t count_bits(const uint8_t* bits, int64_t bytes);

// Sets the bits at these positions.
void set_bits(uint8_t* bits, const int64_t* positions, int64_t count);

// Writes the ascending positions of the set bits, n in number, to out.
void positions(const uint8_t* bits, int64_t bytes, int64_t n, int64_t* out, int threads);

}  // namespace dualfast
