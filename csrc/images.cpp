#include "images.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <vector>

#include "parallel.h"
#include "resize.h"

namespace dualfast {
namespace {

// A thread's buffers, reused from sample to sample.
struct Scratch {
    std::vector<uint8_t> file, pixels;
    Resizer resizer;
};

// Calls work(i, scratch) for every i in [0, n); a thread takes `grain` of them at a time.
template <class Work>
void for_samples(size_t n, size_t grain, int threads, const Work& work) {
    for_parts<Scratch>(static_cast<int64_t>((n + grain - 1) / grain), threads, [&](int64_t part, Scratch& scratch) {
        const size_t first = static_cast<size_t>(part) * grain;
        for (size_t i = first; i < std::min(n, first + grain); ++i) work(i, scratch);
    });
}

// The part of an image inside its box, and the rows y0..y1-1 and columns x0..x1-1 of the output that it fills.
struct Overlap {
    Region source;
    int32_t y0, y1, x0, x1;
    bool any() const { return y1 > y0 && x1 > x0; }
};

Overlap overlap_of(const Box& box, int32_t height, int32_t width, const Output& out) {
    const Region inside{std::max(box.top, 0), std::max(box.left, 0), std::min(box.top + box.height, height),
                        std::min(box.left + box.width, width)};
    const auto scaled = [](int32_t offset, int32_t in_size, int32_t out_size) {  // rounded to nearest
        return static_cast<int32_t>((int64_t{offset} * out_size * 2 + in_size) / (2 * int64_t{in_size}));
    };
    return {inside, scaled(inside.top - box.top, box.height, out.height),
            scaled(inside.bottom - box.top, box.height, out.height),
            scaled(inside.left - box.left, box.width, out.width),
            scaled(inside.right - box.left, box.width, out.width)};
}

// A region of an image that is in memory as a whole.
Tile tile_of(const uint8_t* pixels, int32_t width, const Region& region) {
    const int64_t row_bytes = int64_t{width} * 3;
    return {pixels + region.top * row_bytes + region.left * 3,
            row_bytes,
            {0, static_cast<double>(region.bottom - region.top)},
            {0, static_cast<double>(region.right - region.left)}};
}

// Looks up a row's values, which are `apart` bytes from each other.
template <int apart, class T>
void place_row(const uint8_t* in, int width, bool flip, const T* table, T* out) {
    const T *r = table, *g = table + 256, *b = table + 512;
    const ptrdiff_t step = flip ? -3 * apart : 3 * apart;
    const uint8_t* pixel = in + (flip ? 3 * apart * static_cast<ptrdiff_t>(width - 1) : 0);
    for (T* end = out + 3 * static_cast<ptrdiff_t>(width); out < end; out += 3, pixel += step) {
        out[0] = r[pixel[0]];
        out[1] = g[pixel[apart]];
        out[2] = b[pixel[2 * apart]];
    }
}

template <class T>
void fill_columns(T* row, int32_t begin, int32_t end, const T* fill) {
    for (int32_t x = begin; x < end; ++x) {
        for (int c = 0; c < 3; ++c) row[3 * x + c] = fill[c];
    }
}

// Resizes the tile to its part of output i, mirrors it, looks up every value; fills the rest of the output.
template <class T>
void place(const Tile& tile, const Overlap& overlap, bool flip, const Output& out, size_t i, Scratch& scratch) {
    const auto* table = static_cast<const T*>(out.table);
    const auto* fill = static_cast<const T*>(out.fill);
    T* image = static_cast<T*>(out.data) + i * static_cast<size_t>(out.height) * out.width * 3;
    const int32_t height = overlap.y1 - overlap.y0, width = overlap.x1 - overlap.x0;
    const auto unscaled = [](const Span& span, int32_t size) { return span.start == 0 && span.size == size; };
    const bool resized = overlap.any() && !(unscaled(tile.rows, height) && unscaled(tile.columns, width));
    if (resized) scratch.resizer.start(tile, height, width);
    const uint8_t* block = nullptr;
    const int32_t left = flip ? out.width - overlap.x1 : overlap.x0;
    for (int32_t y = 0; y < out.height; ++y) {
        T* row = image + static_cast<size_t>(y) * out.width * 3;
        if (!overlap.any() || y < overlap.y0 || y >= overlap.y1) {
            fill_columns(row, 0, out.width, fill);
            continue;
        }
        fill_columns(row, 0, left, fill);
        if (resized) {
            const int32_t r = (y - overlap.y0) % kBlockRows;
            if (r == 0) block = scratch.resizer.block(y - overlap.y0);
            place_row<kBlockRows>(block + r, width, flip, table, row + 3 * left);
        } else {
            place_row<1>(tile.pixels + (y - overlap.y0) * tile.row_bytes, width, flip, table, row + 3 * left);
        }
        fill_columns(row, left + width, out.width, fill);
    }
}

void place_any(const Tile& tile, const Overlap& overlap, const Box& box, const Output& out, size_t i,
               Scratch& scratch) {
    switch (out.element) {
        case 1:
            return place<uint8_t>(tile, overlap, box.flip != 0, out, i, scratch);
        case 2:
            return place<uint16_t>(tile, overlap, box.flip != 0, out, i, scratch);
        default:
            return place<uint32_t>(tile, overlap, box.flip != 0, out, i, scratch);
    }
}

Status read_all(int fd, uint8_t* to, size_t size, uint64_t offset) {
    while (size > 0) {
        const ssize_t got = pread(fd, to, size, static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return kReadError;
        if (got == 0) return kShortRead;
        to += got, offset += static_cast<uint64_t>(got), size -= static_cast<size_t>(got);
    }
    return kDone;
}

Status load_one(int fd, const Samples& s, const Output& out, const JpegLimits& limits, size_t i, Scratch& scratch) {
    const bool jpeg = s.mode[i] != kRaw;
    if (jpeg && *jpeg_library() == 0) return kUndecoded;
    if (scratch.file.size() < s.size[i]) scratch.file.resize(s.size[i]);
    const Status status = read_all(fd, scratch.file.data(), s.size[i], s.ptr[i]);
    if (status != kDone) return status;
    const Overlap overlap = overlap_of(s.boxes[i], s.height[i], s.width[i], out);
    Tile tile{};
    if (!jpeg) {
        tile = tile_of(scratch.file.data(), s.width[i], overlap.source);
    } else if (overlap.any() &&
               !decode_jpeg({scratch.file.data(), s.size[i], s.height[i], s.width[i]}, limits, overlap.source,
                            overlap.y1 - overlap.y0, overlap.x1 - overlap.x0, scratch.pixels, tile)) {
        return kUndecoded;
    }
    place_any(tile, overlap, s.boxes[i], out, i, scratch);
    return kDone;
}

}  // namespace

void load_images(int fd, const Samples& samples, const Output& out, const JpegLimits& limits, int threads,
                 int32_t* status) {
    // A JPEG takes about a millisecond: taken one by one, so that no thread waits long for the last.
    const bool any_jpeg = std::find(samples.mode, samples.mode + samples.n, 0) != samples.mode + samples.n;
    for_samples(samples.n, any_jpeg ? 1 : 8, threads, [&](size_t i, Scratch& scratch) {
        try {
            status[i] = load_one(fd, samples, out, limits, i, scratch);
        } catch (const std::bad_alloc&) {
            status[i] = kNoMemory;
        }
    });
}

void place_images(const uint8_t* const* pixels, const Samples& samples, const Output& out, int threads) {
    for_samples(samples.n, 4, threads, [&](size_t i, Scratch& scratch) {
        if (pixels[i] == nullptr) return;
        const Overlap overlap = overlap_of(samples.boxes[i], samples.height[i], samples.width[i], out);
        place_any(tile_of(pixels[i], samples.width[i], overlap.source), overlap, samples.boxes[i], out, i, scratch);
    });
}

}  // namespace dualfast
