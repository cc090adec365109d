// Draws n of N samples: an exponential race on Philox numbers, or the n largest scores. Any number of threads, and any
// of the compiled clones, gives the same bytes.
#pragma once

#include <cstdint>
#include <vector>

namespace dualfast {

// Natural logarithm of a positive finite number, relative error below 4e-16 away from 1, absolute below 3e-16 near it;
// the same bits on every machine. log(0) is -infinity.
double portable_log(double x);

// What decides the race. key_i = log(-log u_i) - log w_i with u_i from Philox4x32-10 of (seed, id): the n smallest keys
// are a draw without replacement with successive-sampling probabilities w (Efraimidis and Spirakis, 2006). Weight: w_i
// = score_i * mean_i^(a-1) * (1-mean_i)^(b-1) where beta, else score_i, or 1 without scores. A weight of zero has the
// key +infinity.
struct Race {
    const double* mean;   // (n,) or null
    const double* score;  // (n,) or null
    const int64_t* ids;   // (n,) or null: 0 .. n-1
    int64_t count;
    double a, b;
    uint64_t seed;
    int threads;
};
void race_keys(const Race& race, double* keys);

// Positions of the n smallest keys, ascending; ties go to the lower position. No key is NaN.
void smallest(const double* keys, int64_t count, int64_t n, int64_t* out, int threads);

}  // namespace dualfast
