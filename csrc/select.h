// Draws n of N samples: an exponential race on Philox numbers, or the n largest scores. Any number of threads, and any
// of the compiled clones, gives the same samples.
#pragma once

#include <cstdint>
#include <vector>

namespace dualfast {

// Natural logarithm of a positive finite number, relative error below 4e-16 away from 1, absolute below 3e-16 near it;
// the same bits on every machine. log(0) is -infinity.
double portable_log(double x);

// float32 or, where wide, float64; null: there is none.
struct Column {
    const void* data;
    bool wide;
};

// What decides the race. key_i = log(-log u_i) - log w_i with u_i from Philox4x32-10 of (seed, id): the n smallest keys
// are a draw without replacement with successive-sampling probabilities w (Efraimidis and Spirakis, 2006). Weight: w_i
// = score_i * mean_i^(a-1) * (1-mean_i)^(b-1), without mean score_i, without either 1. A weight of zero has the key
// kZeroWeight + log(-log u): after all others, in a race of its own.
struct Race {
    Column mean, score;  // (count,)
    const int64_t* ids;  // (count,) or null: first, first + 1, ...
    int64_t first, count;
    double a, b;
    uint64_t seed;
    int threads;
};
constexpr double kZeroWeight = 2000.0;

// Keys (count,) of the samples at the positions `where`, or, where that is null, of the first `count`.
void race_keys(const Race& race, const int64_t* where, int64_t count, double* keys);

// The race as far as float32 can decide it, many samples at a time. Bit i (the lowest of a byte first) is 1 where
// key_i < low for certain, else 0; open: the ascending positions of every sample that may lie in [low, high]; all
// others have keys above high. The bounds of the float32 error stand in select.cpp. Which samples are open may differ
// between processors; what is right about them, and so a draw that settles them by race_keys, does not.
struct Sifted {
    int64_t kept;  // how many
    int64_t bad;   // first position with a score not in [0, inf) or a mean not in [0, 1], or -1
    std::vector<int64_t> open;
    std::vector<float> ratios;  // of each open one: exp(key) over a factor common to all, or NaN
    float error;                // a ratio may be wrong by this factor, either way
};
Sifted sift(const Race& race, double low, double high, uint8_t* bits);

// Positions of the k largest values, largest first; ties go to the lower position, NaN is passed over. k is small.
std::vector<int64_t> largest(Column column, int64_t count, int64_t k, int threads);

// Sets the bits at these positions, the lowest of a byte first.
void set_bits(uint8_t* bits, const int64_t* where, int64_t count);

// Positions of the ones among bits, the lowest of a byte first; n of them.
void positions(const uint8_t* bits, int64_t bytes, int64_t n, int64_t* out, int threads);

}  // namespace dualfast
