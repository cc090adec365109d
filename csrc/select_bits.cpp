// Bitmaps of samples: setting bits, and the positions of those that are set.
#include <algorithm>
#include <cstring>

#include "levels.h"
#include "parallel.h"
#include "select.h"

namespace dualfast {
namespace {

// bits.set[byte] lists the bits that are set in the byte, the lowest first.
struct BitsOfByte {
    int64_t set[256][8] = {};
    BitsOfByte() {
        for (int byte = 0; byte < 256; ++byte) {
            for (int bit = 0, n = 0; bit < 8; ++bit) {
                if (byte >> bit & 1) set[byte][n++] = bit;
            }
        }
    }
};
const BitsOfByte bits_of;

INLINE int64_t count_set_at_level(const uint8_t* bytes, int64_t first, int64_t last) {
    int64_t count = 0;
    for (; first + 8 <= last; first += 8) {
        uint64_t eight;
        std::memcpy(&eight, bytes + first, 8);
        count += __builtin_popcountll(eight);
    }
    for (; first < last; ++first) count += __builtin_popcount(bytes[first]);
    return count;
}
AT_LEVELS(int64_t, count_set, (const uint8_t* bytes, int64_t first, int64_t last), (bytes, first, last))

// The positions of the bits set in bytes[first..last-1], as many as fit between out and end.
INLINE void positions_of_at_level(const uint8_t* bytes, int64_t first, int64_t last, int64_t* __restrict out,
                                  const int64_t* end) {
    for (; first < last; ++first) {
        const int64_t* set = bits_of.set[bytes[first]];
        const int64_t n = std::min<int64_t>(__builtin_popcount(bytes[first]), end - out);
        if (end - out >= 8) {  // always write eight: the next byte's overwrite the surplus
            for (int i = 0; i < 8; ++i) out[i] = 8 * first + set[i];
        } else {
            for (int64_t i = 0; i < n; ++i) out[i] = 8 * first + set[i];
        }
        out += n;
    }
}
AT_LEVELS(void, positions_of, (const uint8_t* bytes, int64_t first, int64_t last, int64_t* out, const int64_t* end),
          (bytes, first, last, out, end))

}  // namespace

std::pair<int64_t, std::vector<int64_t>> settle_by_ratio(const int64_t* undecided, const float* ratios, int64_t count,
                                                         float low, float high, uint8_t* bits) {
    std::vector<int64_t> remaining(static_cast<size_t>(count));
    int64_t n_remaining = 0, n_below = 0;
    for (int64_t i = 0; i < count; ++i) {
        const bool below = ratios[i] < low;
        const bool above = ratios[i] > high;
        bits[undecided[i] / 8] |= static_cast<uint8_t>(below << undecided[i] % 8);
        remaining[static_cast<size_t>(n_remaining)] = undecided[i];
        n_remaining += !(below | above);
        n_below += below;
    }
    remaining.resize(static_cast<size_t>(n_remaining));
    return {n_below, std::move(remaining)};
}

int64_t count_bits(const uint8_t* bits, int64_t bytes) { return count_set(bits, 0, bytes); }

void set_bits(uint8_t* bits, const int64_t* positions, int64_t count) {
    for (int64_t i = 0; i < count; ++i) bits[positions[i] / 8] |= static_cast<uint8_t>(1 << positions[i] % 8);
}

void positions(const uint8_t* bits, int64_t bytes, int64_t n, int64_t* out, int threads) {
    const int64_t parts = parts_of(8 * bytes, threads);
    auto edge = [=](int64_t part) { return bytes * part / parts; };
    std::vector<int64_t> start(static_cast<size_t>(parts) + 1);  // how many bits are set before each part
    for_parts(parts, threads, [&](int64_t part) {
        start[static_cast<size_t>(part) + 1] = count_set(bits, edge(part), edge(part + 1));
    });
    for (size_t part = 0; part + 1 < start.size(); ++part) start[part + 1] += start[part];
    for_parts(parts, threads, [&](int64_t part) {
        const int64_t begin = start[static_cast<size_t>(part)], end = start[static_cast<size_t>(part) + 1];
        positions_of(bits, edge(part), edge(part + 1), out + std::min(n, begin), out + std::min(n, end));
    });
}

}  // namespace dualfast
