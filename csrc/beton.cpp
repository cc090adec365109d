#include "beton.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "jpeg.h"
#include "philox.h"
#include "resize.h"

namespace dualfast {
namespace {

constexpr uint32_t kOrderStream = 0x6F726472;    // "ordr"
constexpr uint32_t kAugmentStream = 0x61756700;  // "aug" and the try
constexpr uint32_t kFlipStream = 0x666C6970;     // "flip"

double unit(uint32_t word) { return (word + 0.5) * 0x1p-32; }

// An integer in [0, n), n >= 1.
int32_t below(uint32_t word, int64_t n) {
    return static_cast<int32_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(n)) >> 32);
}

// The largest box of the output's shape times `fraction`, in the middle of the image.
Box center_box(int32_t height, int32_t width, const CropSpec& spec, double fraction) {
    const double scale =
        std::min(static_cast<double>(height) / spec.out_height, static_cast<double>(width) / spec.out_width) * fraction;
    Box box{};
    box.height = std::clamp(static_cast<int32_t>(std::lround(spec.out_height * scale)), 1, height);
    box.width = std::clamp(static_cast<int32_t>(std::lround(spec.out_width * scale)), 1, width);
    box.top = (height - box.height) / 2;
    box.left = (width - box.width) / 2;
    return box;
}

Box padded_box(int32_t height, int32_t width, const CropSpec& spec, const Philox& draw) {
    Box box = center_box(height, width, spec, 1.0);
    const auto shift = [&](uint32_t word, int32_t size, int32_t out) {
        const int64_t reach = std::llround(spec.pad * size / out);
        return static_cast<int32_t>(below(word, 2 * reach + 1) - reach);
    };
    box.top += shift(draw[0], box.height, spec.out_height);
    box.left += shift(draw[1], box.width, spec.out_width);
    return box;
}

Box resized_box(int64_t id, int32_t height, int32_t width, const CropSpec& spec, uint64_t seed, uint32_t epoch) {
    const double area = static_cast<double>(height) * width;
    const double low = std::log(spec.ratio[0]), high = std::log(spec.ratio[1]);
    for (uint32_t attempt = 0; attempt < 10; ++attempt) {
        const Philox draw = philox4x32(static_cast<uint64_t>(id), epoch, kAugmentStream + attempt, seed);
        const double target = area * (spec.scale[0] + (spec.scale[1] - spec.scale[0]) * unit(draw[0]));
        const double ratio = std::exp(low + (high - low) * unit(draw[1]));
        const auto w = static_cast<int32_t>(std::lround(std::sqrt(target * ratio)));
        const auto h = static_cast<int32_t>(std::lround(std::sqrt(target / ratio)));
        if (w >= 1 && w <= width && h >= 1 && h <= height) {
            return {below(draw[2], height - h + 1), below(draw[3], width - w + 1), h, w, 0};
        }
    }
    const double ratio = std::clamp(static_cast<double>(width) / height, spec.ratio[0], spec.ratio[1]);
    const int32_t w = std::clamp(static_cast<int32_t>(std::lround(height * ratio)), 1, width);
    const int32_t h = std::clamp(static_cast<int32_t>(std::lround(width / ratio)), 1, height);
    return {(height - h) / 2, (width - w) / 2, h, w, 0};
}

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
    if (jpeg && *jpeg_library() == 0) return kLeft;
    if (scratch.file.size() < s.size[i]) scratch.file.resize(s.size[i]);
    const Status status = read_all(fd, scratch.file.data(), s.size[i], s.ptr[i]);
    if (status != kDone) return status;
    const Cover cover = cover_of(s.boxes[i], s.height[i], s.width[i], out);
    Tile tile{};
    if (!jpeg) {
        tile = tile_of(scratch.file.data(), s.width[i], cover.source);
    } else if (cover.any() && !decode_jpeg({scratch.file.data(), s.size[i], s.height[i], s.width[i]}, cover.source,
                                           cover.y1 - cover.y0, cover.x1 - cover.x0, scratch.pixels, tile)) {
        return kLeft;
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

void crop_boxes(const int64_t* ids, const uint16_t* heights, const uint16_t* widths, size_t n, const CropSpec& spec,
                uint64_t seed, uint32_t epoch, Box* boxes) {
    for (size_t i = 0; i < n; ++i) {
        const int32_t height = heights[i], width = widths[i];
        if (spec.kind == Crop::kCenter) {
            boxes[i] = center_box(height, width, spec, spec.fraction);
        } else if (spec.kind == Crop::kPad) {
            boxes[i] =
                padded_box(height, width, spec, philox4x32(static_cast<uint64_t>(ids[i]), epoch, kAugmentStream, seed));
        } else {
            boxes[i] = resized_box(ids[i], height, width, spec, seed, epoch);
        }
        boxes[i].flip = spec.flip && (philox4x32(static_cast<uint64_t>(ids[i]), epoch, kFlipStream, seed)[0] & 1U) != 0;
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
