// Whole columns at the speed of memory: values outside a range, and labels as group numbers.
#include <algorithm>
#include <limits>

#include "select_block.h"

namespace dualfast {
namespace {

template <class T>
INLINE int count_outside(const T* values, int n, T low, T high) {
    int count = 0;
    for (int i = 0; i < n; ++i) count += !(values[i] >= low && values[i] <= high);  // NaN too
    return count;
}
INLINE int outside_block_at_level(const Column& column, int64_t first, int n, double low, double high) {
    if (column.is_double) return count_outside(static_cast<const double*>(column.data) + first, n, low, high);
    return count_outside(static_cast<const float*>(column.data) + first, n, static_cast<float>(low),
                         static_cast<float>(high));
}
AT_LEVELS(int, outside_block, (const Column& column, int64_t first, int n, double low, double high),
          (column, first, n, low, high))

constexpr int64_t kNarrow = 65535;  // numbers below it fit 16 bits with one to spare for no group

// Writes the labels as numbers and counts them. Returns false if one does not fit.
template <class T>
INLINE bool numbers_of(const T* labels, int n, uint16_t* numbers) {
    bool fits = true;
    for (int i = 0; i < n; ++i) {
        fits &= labels[i] >= 0 && labels[i] < static_cast<int64_t>(kNarrow);
        numbers[i] = static_cast<uint16_t>(labels[i]);
    }
    return fits;
}
INLINE bool number_block_at_level(const int32_t* narrow, const int64_t* wide, int64_t first, int n, uint16_t* numbers) {
    return wide ? numbers_of(wide + first, n, numbers) : numbers_of(narrow + first, n, numbers);
}
AT_LEVELS(bool, number_block, (const int32_t* narrow, const int64_t* wide, int64_t first, int n, uint16_t* numbers),
          (narrow, wide, first, n, numbers))

}  // namespace

Outside outside(Column column, int64_t count, double low, double high, int threads, uint8_t* bits) {
    if (!column.is_double) {
        constexpr double kMax = std::numeric_limits<float>::max();
        low = std::max(low, -kMax), high = std::min(high, kMax);
    }
    const int64_t parts = parts_of(count, threads);
    std::vector<Outside> by_part(static_cast<size_t>(parts), Outside{0, -1});
    for_blocks(count, parts, threads, [&](int64_t part, int64_t first, int n) {
        Outside& own = by_part[static_cast<size_t>(part)];
        prefetch(column, first + 4 * kBlock, count);
        const int found = outside_block(column, first, n, low, high);
        own.count += found;
        for (int i = 0; found && (bits || own.first < 0) && i < n; ++i) {
            if (!outside_block(column, first + i, 1, low, high)) continue;
            if (own.first < 0) own.first = first + i;
            if (bits) bits[(first + i) / 8] &= static_cast<uint8_t>(~(1 << i % 8));
        }
    });
    Outside whole{0, -1};
    for (const Outside& part : by_part) {
        whole.count += part.count;
        if (whole.first < 0) whole.first = part.first;
    }
    return whole;
}

std::vector<int64_t> number_labels(const int32_t* narrow, const int64_t* wide, int64_t count, int threads,
                                   uint16_t* numbers) {
    const int64_t parts = parts_of(count, threads);
    struct Counts {
        std::vector<uint32_t> sizes = std::vector<uint32_t>(kNarrow + 1);
        bool fits = true;
    };
    std::vector<Counts> by_thread(threads_of(parts, threads));
    for_blocks(count, parts, by_thread, [&](int64_t, int64_t first, int n, Counts& own) {
        own.fits &= number_block(narrow, wide, first, n, numbers + first);
        for (int i = 0; i < n; ++i) ++own.sizes[numbers[first + i]];
    });
    std::vector<int64_t> sizes(kNarrow);
    for (const Counts& thread : by_thread) {
        if (!thread.fits) return {};
        for (size_t number = 0; number < sizes.size(); ++number) sizes[number] += thread.sizes[number];
    }
    while (sizes.size() > 1 && sizes.back() == 0) sizes.pop_back();
    return sizes;
}

}  // namespace dualfast
