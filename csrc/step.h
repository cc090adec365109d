// The fused training step on CPU tensors: cross-entropy, its gradient and every by-product of a row in one pass.
#pragma once

#include <cstdint>
#include <functional>

#include "line.h"

namespace dualfast {

enum class Logits { kFloat32, kBFloat16 };

struct Step {
    const void* logits;  // (rows, classes); strides are in elements, classes are adjacent
    void* grad;          // same type; may be `logits` itself; null: no gradient
    Logits type;
    int64_t logits_stride, grad_stride;
    const int64_t* targets;  // in [0, classes) or ignore_index
    const int64_t* index;    // in [0, samples); read only with lines
    float* loss;             // (rows,)
    float scale;             // what the gradient is multiplied by
    bool mean;               // divide the gradient by the weights of the rows that are not ignored
    int64_t rows, classes, samples, ignore_index;
    const float* weight;  // (classes,) or null
    float smoothing;
    int32_t* lines;  // (samples, layout.words) or null
    Line layout;
    // Sums over the visits that were folded, (samples,) or null: plain cross-entropy, the margin of the probabilities,
    // k^2 times the margin of the k-th visit.
    float *loss_sums, *prob_margin_sums, *late_margin_sums;
    int32_t* votes;       // (samples,) or null: which wrong class had the largest logit, see vote()
    float* seen;          // (4, rows): p, margin, EL2N and entropy of each row; or null
    uint8_t* flags;       // (rows,) with `seen`: kFlag...
    int32_t* top_others;  // (rows,) with `seen`, or null: the wrong class with the largest logit
    bool by_products;     // the margins, EL2N and entropy too; NaN without
    int threads;
};

// What the rows contained besides observations.
struct Counts {
    int64_t duplicates = 0, non_finite = 0;
    double denominator = 0;  // what `mean` divides by
};

// The first row for which counts(row) is true and whose value is not in [0, limit), or -1. counts is called only where
// some value is neither in the range nor `except`, which rows that do not count may hold.
int64_t first_outside(const int64_t* values, int64_t rows, int64_t limit, int64_t except,
                      const std::function<bool(int64_t)>& counts);

double sum(const float* values, int64_t count);

// Runs the step. Of rows with the same index the first is recorded. Targets and indices are in range.
Counts step(const Step& args);

// The line update alone, from values computed elsewhere. Same rule for repeated indices; a p that is not finite counts
// as a skipped visit.
struct Observe {
    const float *p, *margin, *el2n, *entropy;
    const uint8_t *correct, *counted;  // counted: rows to fold, or null: all
    const int64_t* index;
    int64_t rows, samples;
    int32_t* lines;
    Line layout;
    int threads;
};
Counts observe(const Observe& args);

}  // namespace dualfast
