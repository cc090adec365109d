// Decodes the part of a JPEG that a crop needs, with libjpeg-turbo.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "resize.h"

namespace dualfast {

// For example "libjpeg-turbo 2.1.5"; empty when built without it: decode_jpeg then always returns false.
const char* jpeg_library();

struct Jpeg {
    const uint8_t* data;
    size_t size;
    int32_t height, width;  // expected size of the image
};

// Rows top .. bottom - 1, columns left .. right - 1: not empty, inside the image.
struct Region {
    int32_t top, left, bottom, right;
};

// What a hostile file may cost: bytes of the whole image as RGB, and of what libjpeg collects over several scans.
struct JpegLimits {
    int64_t bytes;
    int32_t scans;
};

// Decodes `region` into `buffer` and points `tile` at its pixels, which equal those of decoding the whole image.
// Decodes at 1/2, 1/4 or 1/8 of its size where that still has out_height x out_width pixels (4:2:2: twice as many).
// Returns false unless the file, read down to the region's last row, is an undamaged 8-bit gray, YCbCr or RGB JPEG of
// the expected size and within the limits.
bool decode_jpeg(const Jpeg& jpeg, const JpegLimits& limits, const Region& region, int32_t out_height,
                 int32_t out_width, std::vector<uint8_t>& buffer, Tile& tile);

}  // namespace dualfast
