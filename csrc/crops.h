// Crop boxes: where each image of a batch is cut, a pure function of (seed, epoch, id) and the image's size.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace dualfast {

// Where a sample's image is cut: rows top..top+height, columns left..left+width, in pixels of the stored image. A box
// may reach outside; what lies there is filled.
struct Box {
    int32_t top, left, height, width, flip;
};

struct CropSpec {
    bool flip;  // mirror half of the samples
    int32_t out_height, out_width;
    const double* parameters;  // of the kind of crop, in the order of CROP_PARAMETERS in dualfast/config.py
};

struct CropKind {
    const char* name;
    size_t n_parameters;
    Box (*box)(int64_t id, int32_t height, int32_t width, const CropSpec& spec, uint64_t seed, uint32_t epoch);
};

// The kind of that name, null when there is none.
const CropKind* find_crop_kind(const std::string& name);

// Boxes of n samples of heights x widths pixels.
void crop_boxes(const int64_t* ids, const uint16_t* heights, const uint16_t* widths, size_t n, const CropKind& kind,
                const CropSpec& spec, uint64_t seed, uint32_t epoch, Box* boxes);

}  // namespace dualfast
