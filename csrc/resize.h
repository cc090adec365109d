// Antialiased bilinear resizing of RGB bytes.
#pragma once
#include <cstdint>
#include <vector>

namespace dualfast {

// A region's extent on one axis, in pixels: it starts at `start`, in [0, 1), of the first one and is `size` long.
struct Span {
    double start, size;
};

// A region's pixels, rows row_bytes apart, from the first one it touches. Fractions come from decoding at reduced size.
struct Tile {
    const uint8_t* pixels;
    int64_t row_bytes;
    Span rows, columns;
};

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

// Resizes the tile to out_height x out_width pixels at `out`, packed; writes one byte past them. A triangle filter as
// wide as the scale, so that shrinking averages: Pillow's BILINEAR to within one count.
void resize_rgb(const Tile& in, uint8_t* out, int out_height, int out_width, ResizeScratch& scratch);

}  // namespace dualfast
