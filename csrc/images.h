// A batch of images: reading, cropping, resizing and normalizing in one pass.
#pragma once
#include <cstddef>
#include <cstdint>

#include "crops.h"
#include "jpeg.h"

namespace dualfast {

constexpr uint8_t kRaw = 1;  // Samples::mode of uncompressed pixels; 0 is JPEG

// The same numbers index READ_STATUS in dualfast/ops/images.py.
enum Status : int32_t { kDone = 0, kReadError = 1, kShortRead = 2, kNoMemory = 3, kUndecoded = 4 };

struct Samples {
    size_t n;
    const uint64_t *ptr, *size;  // bytes in the file
    const uint8_t* mode;
    const uint16_t *height, *width;
    const Box* boxes;
};

struct Output {
    void* data;  // (n, height, width, 3), elements of `element` bytes
    int32_t height, width;
    int32_t element;    // 1, 2 or 4
    const void* table;  // (3, 256) elements: pixel value v of channel c becomes table[c][v]
    const void* fill;   // 3 elements: the value of each channel outside the image
};

// Fills out.data and status, one code per sample; kUndecoded is a JPEG that decode_jpeg rejects, for the caller to
// decode. The result is the same for any number of threads.
void load_images(int fd, const Samples& samples, const Output& out, const JpegLimits& limits, int threads,
                 int32_t* status);

// The same from decoded images: pixels[i] is height x width x 3 bytes, or null to leave out.data[i] alone.
void place_images(const uint8_t* const* pixels, const Samples& samples, const Output& out, int threads);

}  // namespace dualfast
