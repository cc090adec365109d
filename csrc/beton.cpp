#include "beton.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "jpeg.h"
#include "philox.h"
#include "resize.h"

namespace dualfast {
namespace {

constexpr uint32_t kOrderStream = 0x6F726472;  // "ordr"

struct Scratch {
    std::vector<uint8_t> file, pixels, tile;
    ResizeScratch resize;
};

// Runs work(i, scratch) for every i in [0, n), `grain` of them at a time; the threads end before it returns.
template <class Work>
void share(size_t n, size_t grain, int threads, const Work& work) {
    const size_t wanted = std::min<size_t>(static_cast<size_t>(std::max(threads, 1)), (n + grain - 1) / grain);
    std::atomic<size_t> next{0};
    const auto run = [&] {
        Scratch scratch;
        for (size_t at = next.fetch_add(grain); at < n; at = next.fetch_add(grain)) {
            for (size_t i = at; i < std::min(n, at + grain); ++i) work(i, scratch);
        }
    };
    std::vector<std::thread> helpers;
    for (size_t i = 1; i < wanted; ++i) {
        try {
            helpers.emplace_back(run);
        } catch (const std::system_error&) {  // no thread to be had: fewer do the same work
            break;
        }
    }
    run();
    for (std::thread& helper : helpers) helper.join();
}

// The part of an image that a box covers, and the part of the output that this becomes.
struct Cover {
    Region source;
    int32_t y0, y1, x0, x1;
    bool any() const { return y1 > y0 && x1 > x0; }
};

Cover cover_of(const Box& box, int32_t height, int32_t width, const Output& out) {
    const Region in{std::max(box.top, 0), std::max(box.left, 0), std::min(box.top + box.height, height),
                    std::min(box.left + box.width, width)};
    const auto scaled = [](int32_t offset, int32_t size, int32_t of) {
        return static_cast<int32_t>((static_cast<int64_t>(offset) * of * 2 + size) / (2 * static_cast<int64_t>(size)));
    };
    return {in, scaled(in.top - box.top, box.height, out.height), scaled(in.bottom - box.top, box.height, out.height),
            scaled(in.left - box.left, box.width, out.width), scaled(in.right - box.left, box.width, out.width)};
}

// The region of an image that is all there.
Tile tile_of(const uint8_t* pixels, int32_t width, const Region& at) {
    const int64_t row_bytes = int64_t{width} * 3;
    return {pixels + at.top * row_bytes + at.left * 3,
            row_bytes,
            {0, static_cast<double>(at.bottom - at.top)},
            {0, static_cast<double>(at.right - at.left)}};
}

template <class T>
void place_row(const uint8_t* in, int width, bool flip, const T* table, T* out) {
    const T *r = table, *g = table + 256, *b = table + 512;
    for (int x = 0; x < width; ++x) {
        const uint8_t* pixel = in + 3 * (flip ? width - 1 - x : x);
        out[3 * x] = r[pixel[0]];
        out[3 * x + 1] = g[pixel[1]];
        out[3 * x + 2] = b[pixel[2]];
    }
}

// Scales the tile to the part of the output that it covers, mirrors it, looks every value up.
template <class T>
void place(Tile tile, const Cover& cover, bool flip, const Output& out, size_t i, Scratch& scratch) {
    const auto* table = static_cast<const T*>(out.table);
    const auto* fill = static_cast<const T*>(out.fill);
    T* image = static_cast<T*>(out.data) + i * static_cast<size_t>(out.height) * out.width * 3;
    const int32_t height = cover.y1 - cover.y0, width = cover.x1 - cover.x0;
    const auto exact = [](const Span& span, int32_t size) { return span.start == 0 && span.size == size; };
    if (cover.any() && !(exact(tile.rows, height) && exact(tile.columns, width))) {
        scratch.tile.resize(static_cast<size_t>(height) * width * 3 + 1);
        resize_rgb(tile, scratch.tile.data(), height, width, scratch.resize);
        tile.pixels = scratch.tile.data();
        tile.row_bytes = int64_t{width} * 3;
    }
    const int32_t begin = flip ? out.width - cover.x1 : cover.x0;  // mirrored, the covered part starts elsewhere
    for (int32_t y = 0; y < out.height; ++y) {
        T* row = image + static_cast<size_t>(y) * out.width * 3;
        const bool covered = cover.any() && y >= cover.y0 && y < cover.y1;
        const int32_t from = covered ? begin : out.width, to = covered ? begin + width : out.width;
        for (int32_t x = 0; x < out.width; ++x) {
            if (x == from) x = to;
            if (x >= out.width) break;
            for (int c = 0; c < 3; ++c) row[3 * x + c] = fill[c];
        }
        if (covered) place_row(tile.pixels + (y - cover.y0) * tile.row_bytes, width, flip, table, row + 3 * from);
    }
}

void place_any(const Tile& tile, const Cover& cover, const Box& box, const Output& out, size_t i, Scratch& scratch) {
    switch (out.element) {
        case 1:
            return place<uint8_t>(tile, cover, box.flip != 0, out, i, scratch);
        case 2:
            return place<uint16_t>(tile, cover, box.flip != 0, out, i, scratch);
        default:
            return place<uint32_t>(tile, cover, box.flip != 0, out, i, scratch);
    }
}

Status read_all(int fd, uint8_t* to, size_t size, uint64_t at) {
    while (size > 0) {
        const ssize_t got = pread(fd, to, size, static_cast<off_t>(at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return kReadError;
        if (got == 0) return kShortRead;
        to += got, at += static_cast<uint64_t>(got), size -= static_cast<size_t>(got);
    }
    return kDone;
}

Status load_one(int fd, const Samples& s, const Output& out, size_t i, Scratch& scratch) {
    const bool jpeg = s.mode[i] != 1;
    if (jpeg && *jpeg_library() == 0) return kUndecoded;
    if (scratch.file.size() < s.size[i]) scratch.file.resize(s.size[i]);
    const Status status = read_all(fd, scratch.file.data(), s.size[i], s.ptr[i]);
    if (status != kDone) return status;
    const Cover cover = cover_of(s.boxes[i], s.height[i], s.width[i], out);
    Tile tile{};
    if (!jpeg) {
        tile = tile_of(scratch.file.data(), s.width[i], cover.source);
    } else if (cover.any() && !decode_jpeg({scratch.file.data(), s.size[i], s.height[i], s.width[i]}, cover.source,
                                           cover.y1 - cover.y0, cover.x1 - cover.x0, scratch.pixels, tile)) {
        return kUndecoded;
    }
    place_any(tile, cover, s.boxes[i], out, i, scratch);
    return kDone;
}

}  // namespace

void order_keys(const int64_t* ids, size_t n, uint64_t seed, uint32_t epoch, uint64_t* keys) {
    for (size_t i = 0; i < n; ++i) {
        const Philox draw = philox4x32(static_cast<uint64_t>(ids[i]), epoch, kOrderStream, seed);
        keys[i] = static_cast<uint64_t>(draw[1]) << 32 | draw[0];
    }
}

void load_images(int fd, const Samples& samples, const Output& out, int threads, int32_t* status) {
    // A JPEG takes about a millisecond: shared one by one, so that no thread waits long for the last.
    const bool jpeg = std::find(samples.mode, samples.mode + samples.n, 0) != samples.mode + samples.n;
    share(samples.n, jpeg ? 1 : 8, threads, [&](size_t i, Scratch& scratch) {
        try {
            status[i] = load_one(fd, samples, out, i, scratch);
        } catch (const std::bad_alloc&) {
            status[i] = kNoMemory;
        }
    });
}

void place_images(const uint8_t* const* pixels, const Samples& samples, const Output& out, int threads) {
    share(samples.n, 4, threads, [&](size_t i, Scratch& scratch) {
        if (pixels[i] == nullptr) return;
        const Cover cover = cover_of(samples.boxes[i], samples.height[i], samples.width[i], out);
        place_any(tile_of(pixels[i], samples.width[i], cover.source), cover, samples.boxes[i], out, i, scratch);
    });
}

}  // namespace dualfast
