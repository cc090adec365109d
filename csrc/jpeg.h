// Decoding the part of a JPEG that a crop needs, with libjpeg-turbo.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "resize.h"

namespace dualfast {

// "libjpeg-turbo 2.1.5"; empty where this was built without it, and decode_jpeg decodes nothing.
const char* jpeg_library();

struct Jpeg {
    const uint8_t* data;
    size_t size;
    int32_t height, width;  // what the image must be
};

// Rows top .. bottom - 1, columns left .. right - 1, not empty, inside the image.
struct Region {
    int32_t top, left, bottom, right;
};

// Decodes `region` to the pixels that a decoder of the whole image gives; at 1/2, 1/4 or 1/8 of its size where that
// still has out_height x out_width pixels (4:2:2: twice as many). The tile's pixels stand in `buffer`. False for all
// but a flawless 8-bit gray, YCbCr or RGB JPEG of the right size, as far as it is read: down to the region's last row.
bool decode_jpeg(const Jpeg& jpeg, const Region& region, int32_t out_height, int32_t out_width,
                 std::vector<uint8_t>& buffer, Tile& tile);

}  // namespace dualfast
