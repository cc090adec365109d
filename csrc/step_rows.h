// The rows of a step, compiled once per instruction set: step.cpp includes this with LEVEL, a namespace, and LANES, the
// number of floats in a vector.

namespace dualfast {
namespace {
namespace LEVEL {

constexpr int N = LANES;
using Floats = float __attribute__((vector_size(4 * N)));
using Ints = int32_t __attribute__((vector_size(4 * N)));

// clang-format off: each needs those before it
#include "step_math.h"
#include "step_terms.h"
#include "step_many.h"
#include "step_few.h"
// clang-format on

template <class T>
INLINE int64_t run_rows(const Work& work, int64_t begin, int64_t end) {
    int64_t non_finite = 0;
    for (int64_t row = begin; row < std::min(begin + kAhead, end); ++row) prefetch_line(work, row);
    if (work.args.classes <= kFewClasses) {
        for (int64_t row = begin; row < end; row += N) {
            run_block<T>(work, row, static_cast<int>(std::min<int64_t>(N, end - row)), non_finite);
        }
        return non_finite;
    }
    std::vector<float> scratch(static_cast<size_t>(work.args.classes));
    for (int64_t row = begin; row < end; ++row) {
        prefetch_line(work, row + kAhead);
        run_row<T>(work, row, scratch.data(), non_finite);
    }
    return non_finite;
}

// Runs rows begin to end on this thread; returns how many of the recorded ones were not finite.
int64_t rows(const Work& work, int64_t begin, int64_t end) {
    return work.args.type == Logits::kFloat32 ? run_rows<float>(work, begin, end)
                                              : run_rows<uint16_t>(work, begin, end);
}

}  // namespace LEVEL
}  // namespace
}  // namespace dualfast

#undef LEVEL
#undef LANES
