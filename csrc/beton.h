// Batches out of a .beton: order keys, crop boxes, and reading, cropping, resizing and normalising in one pass.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dualfast {

// Where a sample's image is cut: rows top..top+height, columns left..left+width, in pixels of the stored image. A box
// may reach outside; what lies there is filled.
struct Box {
    int32_t top, left, height, width, flip;
};

enum class Crop : int32_t { kCenter = 0, kPad = 1, kResized = 2 };

struct CropSpec {
    Crop kind;
    bool flip;  // mirror half of the samples
    int32_t out_height, out_width;
    double fraction;  // kCenter: part of the largest box of the output's shape; 1 = all of it
    double pad;       // kPad: largest shift, in output pixels
    double scale[2];  // kResized: area of the box over the image's
    double ratio[2];  // kResized: width over height, drawn log-uniformly
};

// 64-bit keys whose ascending order is the shuffle of (seed, epoch): a pure function of (seed, epoch, id).
void order_keys(const int64_t* ids, size_t n, uint64_t seed, uint32_t epoch, uint64_t* keys);

// Boxes of n samples: a pure function of (seed, epoch, id) and the image's size. 10 tries for kResized, then the
// centre.
void crop_boxes(const int64_t* ids, const uint16_t* heights, const uint16_t* widths, size_t n, const CropSpec& spec,
                uint64_t seed, uint32_t epoch, Box* boxes);

enum Status : int32_t { kDone = 0, kReadError = 1, kShortRead = 2, kDecodeError = 3, kNoMemory = 4, kLeft = 5 };

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

// Fills out.data; status[i] tells how sample i went (kLeft: a JPEG that decode_jpeg does not take, left to the
// caller). Samples are shared among `threads` threads that end with the call; the result is the same for any number.
void load_images(int fd, const Samples& samples, const Output& out, int threads, int32_t* status);

// The same from images in memory, pixels[i] of height x width x 3 bytes; entries that are null are left alone.
void place_images(const uint8_t* const* pixels, const Samples& samples, const Output& out, int threads);

}  // namespace dualfast
