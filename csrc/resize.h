// Antialiased bilinear resizing of RGB bytes.
#pragma once
#include <cstdint>
#include <vector>

namespace dualfast {

// Weights of one axis: output i reads inputs first[i] .. first[i] + taps - 1 (weights past the border are zero).
struct Axis {
    int taps = 0;
    std::vector<int32_t> first;
    std::vector<float> weight;  // (outputs, taps), each row sums to 1
};

struct ResizeScratch {
    Axis rows, columns;
    std::vector<float> line;
};

// Scales the box of in_height x in_width pixels at `in` (row_bytes apart) to out_height x out_width pixels at `out`,
// packed. A triangle filter as wide as the scale, so that shrinking averages: Pillow's BILINEAR to within one count.
void resize_rgb(const uint8_t* in, int64_t row_bytes, int in_height, int in_width, uint8_t* out, int out_height,
                int out_width, ResizeScratch& scratch);

}  // namespace dualfast
