// The crop box of each sample, drawn from (seed, epoch, id).
#pragma once
#include <cstddef>
#include <cstdint>

namespace dualfast {

// A crop: rows top..top+height, columns left..left+width, in pixels of the stored image. It may reach beyond the image;
// that part of the output gets the fill value.
struct Box {
    int32_t top, left, height, width, flip;
};

enum class Crop : int32_t { kCenter = 0, kPad = 1, kResized = 2 };

struct CropSpec {
    Crop kind;
    bool flip;  // mirror half of the samples
    int32_t out_height, out_width;
    double fraction;  // kCenter: fraction of the largest box with the output's aspect ratio; 1 = all of it
    double pad;       // kPad: largest shift, in output pixels
    double scale[2];  // kResized: area of the box over the image's
    double ratio[2];  // kResized: width over height, drawn log-uniformly
};

// Boxes of n samples: a pure function of (seed, epoch, id) and the image's size. kResized makes 10 attempts, then takes
// a center crop.
void crop_boxes(const int64_t* ids, const uint16_t* heights, const uint16_t* widths, size_t n, const CropSpec& spec,
                uint64_t seed, uint32_t epoch, Box* boxes);

}  // namespace dualfast
