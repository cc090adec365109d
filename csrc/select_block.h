// Shared by the select_*.cpp files: samples are processed in blocks whose intermediate columns fit the first-level
// cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "levels.h"
#include "parallel.h"
#include "philox.h"
#include "select.h"

namespace dualfast {

constexpr int kBlock = 512;
constexpr uint32_t kSelectStream = 0x53454C45;  // "SELE"

// Runs `statement` with `values`, the column's data from `first` on in their own type.
#define WITH_VALUES(column, first, statement)                                         \
    do {                                                                              \
        if ((column).is_double) {                                                     \
            const auto* values = static_cast<const double*>((column).data) + (first); \
            statement;                                                                \
        } else {                                                                      \
            const auto* values = static_cast<const float*>((column).data) + (first);  \
            statement;                                                                \
        }                                                                             \
    } while (false)

// The first sample of one of the parts that for_blocks divides `count` samples into.
inline int64_t begin_of(int64_t count, int64_t parts, int64_t part) {
    const int64_t blocks = (count + kBlock - 1) / kBlock;
    return std::min(blocks * part / parts * kBlock, count);
}

// Calls work(part, first, n, scratch) for each block first..first+n-1 of `count` samples; `parts` parts run in
// parallel, on a thread for each scratch.
template <class Scratch, class Work>
void for_blocks(int64_t count, int64_t parts, std::vector<Scratch>& scratches, const Work& work) {
    for_parts(parts, scratches, [&](int64_t part, Scratch& scratch) {
        const int64_t end = begin_of(count, parts, part + 1);
        for (int64_t first = begin_of(count, parts, part); first < end; first += kBlock) {
            work(part, first, static_cast<int>(std::min<int64_t>(kBlock, end - first)), scratch);
        }
    });
}

// The same without scratch: work(part, first, n).
template <class Work>
void for_blocks(int64_t count, int64_t parts, int threads, const Work& work) {
    struct Nothing {};
    std::vector<Nothing> nothing(threads_of(parts, threads));
    for_blocks(count, parts, nothing, [&](int64_t part, int64_t first, int n, Nothing&) { work(part, first, n); });
}

// Adds up what the threads have counted.
inline void add_up(const std::vector<std::vector<uint32_t>>& threads, int64_t size, int64_t* sums) {
    std::fill(sums, sums + size, 0);
    for (const std::vector<uint32_t>& counts : threads) {
        for (int64_t i = 0; i < size; ++i) sums[i] += counts[static_cast<size_t>(i)];
    }
}

// 32 random bits for each of n samples: the upper ones of its u (half 0) or the lower (half 1). A sample uses word
// id mod 4 of the Philox block (id / 4, half), so that neighbours share one block. `buffer` has room for 4 * kBlock
// words; the result points into it.
INLINE const uint32_t* random_words(const Race& race, int64_t first, int n, uint32_t half, uint32_t* buffer) {
    uint64_t philox_ids[kBlock + 1];
    if (!race.ids) {
        const auto id = static_cast<uint64_t>(race.first + first);
        const int blocks = static_cast<int>((id + static_cast<uint64_t>(n) + 3) / 4 - id / 4);
        for (int i = 0; i < blocks; ++i) philox_ids[i] = id / 4 + static_cast<uint64_t>(i);
        philox_words({philox_ids, blocks, half, kSelectStream, race.seed, buffer});
        return buffer + id % 4;
    }
    const int64_t* ids = race.ids + first;
    for (int i = 0; i < n; ++i) philox_ids[i] = static_cast<uint64_t>(ids[i]) / 4;
    philox_words({philox_ids, n, half, kSelectStream, race.seed, buffer});
    for (int i = 0; i < n; ++i) buffer[i] = buffer[4 * i + static_cast<int>(ids[i] & 3)];
    return buffer;
}

// Bit i of a bitmap.
INLINE bool bit_at(const uint8_t* bits, int64_t i) { return bits[i / 8] >> i % 8 & 1; }

// The group of each of n samples from `first` on, a multiple of 8; groups.count for those in none.
INLINE void rows_of(const Groups& groups, int64_t first, int n, uint32_t* rows) {
    const auto none = static_cast<uint32_t>(groups.count);
    for (int i = 0; groups.narrow && i < n; ++i) rows[i] = std::min<uint32_t>(groups.narrow[first + i], none);
    for (int i = 0; groups.wide && i < n; ++i) rows[i] = std::min(static_cast<uint32_t>(groups.wide[first + i]), none);
    for (int i = 0; !groups.numbered() && i < n; ++i) rows[i] = 0;
    for (int i = 0; groups.allowed && i < n; ++i) rows[i] = bit_at(groups.allowed + first / 8, i) ? rows[i] : none;
}

// Prefetches the block of a column that begins at `first`: the hardware prefetcher stops at the end of a page.
INLINE void prefetch_block(const void* data, int64_t width, int64_t first, int64_t count) {
    if (!data) return;
    const int64_t end = std::min(first + kBlock, count) * width;
    for (int64_t at = first * width; at < end; at += 64) __builtin_prefetch(static_cast<const char*>(data) + at);
}
INLINE void prefetch(const Column& column, int64_t first, int64_t count) {
    prefetch_block(column.data, column.is_double ? 8 : 4, first, count);
}
INLINE void prefetch(const Groups& groups, int64_t first, int64_t count) {
    prefetch_block(groups.narrow, 2, first, count);
    prefetch_block(groups.wide, 4, first, count);
}

}  // namespace dualfast
