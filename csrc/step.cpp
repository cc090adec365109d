#include "step.h"

#include <cfloat>
#include <limits>
#include <type_traits>
#include <vector>

#include "levels.h"

namespace dualfast {
namespace {

constexpr int64_t kFewClasses = 256;  // up to which vector lanes are rows
constexpr int kGroup = 16;            // classes of such a block that are summed apart
// Elements up to which one thread takes the step: 0.1 ms of work. Two would halve that on idle cores, but where loader
// workers hold the cores, the calling thread waits for the other one, a millisecond and more.
constexpr int64_t kSerial = 1 << 17;
constexpr int64_t kAhead = 16;  // lines are prefetched this many rows early

// Marks the rows that are recorded: `wanted` (null: all), not ignored, and the first such row of their index in the
// batch; returns how many of them were not the first. Open addressing of row numbers, with no allocation per row and at
// least four slots per row, as a collision costs a mispredicted branch.
int64_t mark_counted(const int64_t* index, const int64_t* targets, int64_t ignore_index, const uint8_t* wanted,
                     int64_t rows, std::vector<uint8_t>& counted) {
    int bits = 6;
    while ((int64_t{1} << bits) < rows * 4) ++bits;
    const size_t mask = (size_t{1} << bits) - 1;
    std::vector<uint32_t> table(mask + 1);  // row + 1, or 0
    counted.assign(static_cast<size_t>(rows), 1);
    int64_t duplicates = 0;
    for (int64_t r = 0; r < rows; ++r) {
        if ((targets && targets[r] == ignore_index) || (wanted && !wanted[r])) {
            counted[static_cast<size_t>(r)] = 0;
            continue;
        }
        const int64_t id = index[r];
        size_t slot = static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15ull >> (64 - bits);
        while (table[slot] != 0 && index[table[slot] - 1] != id) slot = (slot + 1) & mask;
        if (table[slot] != 0) {
            counted[static_cast<size_t>(r)] = 0;
            ++duplicates;
        } else {
            table[slot] = static_cast<uint32_t>(r + 1);
        }
    }
    return duplicates;
}

// The terms of the loss that all rows share.
struct Terms {
    float scale, hard, soft, weight_sum;  // hard, soft: the shares of the label and of each class in the target
    bool by_products;
    bool prob_margin;  // only where its sums are kept: it takes an exponential more
};

// One call. counted: which rows are visits; empty when no lines are written. beside: whether something is kept beside
// the lines; lines_only: whether nothing but lines is written. Both are asked once instead of at each row.
struct Work {
    Step args;
    Terms terms;
    bool beside, lines_only;
    std::vector<uint8_t> counted;
};

}  // namespace
}  // namespace dualfast

// Four values of two vectors: 0 to 3 are the first one's, 4 to 7 the second one's.
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Int4{__VA_ARGS__})
#endif

// The rows, compiled for three instruction sets; clang, which does not know the pragmas, compiles the lowest alone.
// The whole file each time: before GCC inlines a function it splits vectors to what that function's own target has.
#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")  // saves a sixth of the time; the last digits of a loss are not promised
#if defined(__x86_64__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define LEVEL v4
#define LANES 16
#include "step_rows.h"
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define LEVEL v3
#define LANES 8
#include "step_rows.h"
#pragma GCC pop_options
#endif
#define LEVEL v1
#define LANES 4
#include "step_rows.h"
#pragma GCC pop_options

namespace dualfast {
namespace {

int64_t rows_at_level(const Work& work, int64_t begin, int64_t end) {
#if defined(__x86_64__) && !defined(__clang__)
    if (level() == 2) return v4::rows(work, begin, end);
    if (level() == 1) return v3::rows(work, begin, end);
#endif
    return v1::rows(work, begin, end);
}

// How many values lie outside [0, limit) and are not `except`.
INLINE int64_t outside_at_level(const int64_t* values, int64_t rows, int64_t limit, int64_t except) {
    int64_t count = 0;
#pragma omp simd reduction(+ : count)
    for (int64_t r = 0; r < rows; ++r) {
        count += (values[r] < 0 || values[r] >= limit) && values[r] != except;
    }
    return count;
}
AT_LEVELS(int64_t, outside, (const int64_t* values, int64_t rows, int64_t limit, int64_t except),
          (values, rows, limit, except))

}  // namespace

int64_t first_outside(const int64_t* values, int64_t rows, int64_t limit, int64_t except,
                      const std::function<bool(int64_t)>& counts) {
    if (outside(values, rows, limit, except) == 0) return -1;
    for (int64_t row = 0; row < rows; ++row) {
        if ((values[row] < 0 || values[row] >= limit) && counts(row)) return row;
    }
    return -1;
}

double sum(const float* values, int64_t count) {
    constexpr int kLanes = 8;  // fixed, so that every processor adds in the same order
    double lanes[kLanes] = {}, total = 0;
    const int64_t whole = count / kLanes * kLanes;
    for (int64_t i = 0; i < whole; i += kLanes) {
        for (int k = 0; k < kLanes; ++k) lanes[k] += static_cast<double>(values[i + k]);
    }
    for (int64_t i = whole; i < count; ++i) total += static_cast<double>(values[i]);
    for (const double lane : lanes) total += lane;
    return total;
}

Counts step(const Step& given) {
    Counts counts;
    Work work{given, {}, false, false, {}};
    Step& args = work.args;
    int64_t kept = 0;
    double weights = 0;
    for (int64_t r = 0; r < args.rows; ++r) {
        const bool keep = args.targets[r] != args.ignore_index;
        kept += keep;
        if (args.weight && keep) weights += static_cast<double>(args.weight[args.targets[r]]);
    }
    counts.denominator = args.weight ? weights : static_cast<double>(kept);
    if (args.mean) args.scale = static_cast<float>(static_cast<double>(args.scale) / counts.denominator);
    if (args.lines) {
        counts.duplicates = mark_counted(args.index, args.targets, args.ignore_index, nullptr, args.rows, work.counted);
    }
    work.terms.scale = args.scale;
    work.terms.hard = 1 - args.smoothing;
    work.terms.soft = args.smoothing / static_cast<float>(args.classes);
    work.terms.weight_sum = static_cast<float>(args.weight ? sum(args.weight, args.classes) : args.classes);
    work.terms.by_products = args.by_products;
    work.terms.prob_margin = args.by_products && args.prob_margin_sums;
    work.beside = args.loss_sums || args.prob_margin_sums || args.late_margin_sums || args.votes;
    work.lines_only = args.lines != nullptr && !work.beside && !args.flags && !args.top_others;
    if (args.threads < 2 || args.rows * args.classes <= kSerial) {
        counts.non_finite = rows_at_level(work, 0, args.rows);
        return counts;
    }
    const int64_t share = ((args.rows + args.threads - 1) / args.threads + kAhead - 1) / kAhead * kAhead;
    int64_t non_finite = 0;
#pragma omp parallel for schedule(static) reduction(+ : non_finite) num_threads(args.threads)
    for (int64_t begin = 0; begin < args.rows; begin += share) {
        non_finite += rows_at_level(work, begin, std::min(begin + share, args.rows));
    }
    counts.non_finite = non_finite;
    return counts;
}

Counts observe(const Observe& args) {
    Counts counts;
    std::vector<uint8_t> counted;
    counts.duplicates = mark_counted(args.index, nullptr, 0, args.counted, args.rows, counted);
    int64_t non_finite = 0;
#pragma omp parallel for schedule(static) reduction(+ : non_finite) \
    num_threads(args.threads) if (args.rows > kSerial / 64)
    for (int64_t r = 0; r < args.rows; ++r) {
        if (!counted[static_cast<size_t>(r)]) continue;
        const bool finite = std::isfinite(args.p[r]);
        fold(args.lines + args.index[r] * args.layout.words, args.layout,
             {args.p[r], args.margin[r], args.el2n[r], args.entropy[r], args.correct[r] != 0, finite});
        non_finite += !finite;
    }
    counts.non_finite = non_finite;
    return counts;
}

}  // namespace dualfast
