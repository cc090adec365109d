// Batches out of a .beton: order keys, and reading, cropping, resizing and normalising in one pass.
#pragma once
#include <cstddef>
#include <cstdint>

#include "crops.h"

namespace dualfast {

// 64-bit keys whose ascending order is the shuffle of (seed, epoch): a pure function of (seed, epoch, id).
void order_keys(const int64_t* ids, size_t n, uint64_t seed, uint32_t epoch, uint64_t* keys);

enum Status : int32_t { kDone = 0, kReadError = 1, kShortRead = 2, kNoMemory = 3, kUndecoded = 4 };

struct Samples {
    size_t n;
    const uint64_t *ptr, *size;  // bytes in the file
    const uint8_t* mode;         // 0 JPEG, 1 raw
    const uint16_t *height, *width;
    const Box* boxes;
};

struct Output {
    void* data;  // (n, height, width, 3), elements of `element` bytes
    int32_t height, width;
    int32_t element;    // 1, 2 or 4
    const void* table;  // (3, 256) elements: what a pixel value becomes
    const void* fill;   // 3 elements: what lies outside the image
};

// Fills out.data; status[i] is the outcome of sample i (kUndecoded: a JPEG that decode_jpeg does not take, left
// to the caller). Samples are shared among `threads` threads that end with the call; the result is the same for any
// number.
void load_images(int fd, const Samples& samples, const Output& out, int threads, int32_t* status);

// The same from images in memory, pixels[i] of height x width x 3 bytes; entries that are null are left alone.
void place_images(const uint8_t* const* pixels, const Samples& samples, const Output& out, int threads);

}  // namespace dualfast
