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

constexpr int kBlockRows = 16;  // a vector holds one value of each

// Resizes a tile with a triangle filter as wide as the scale, so that shrinking averages: Pillow's BILINEAR to within
// one count.
class Resizer {
  public:
    void start(const Tile& tile, int height, int width);
    // The block of output rows y .. y + kBlockRows - 1, of which those past the last one mean nothing: channel c of the
    // pixel x of row y + r is at [(3 x + c) kBlockRows + r]. Valid until the next call.
    const uint8_t* block(int y);

  private:
    Tile tile_{};
    int height_ = 0, width_ = 0, values_ = 0;  // values_: of a row of the tile
    Axis rows_, columns_;
    std::vector<float> lines_, lanes_;  // rows scaled in height, and the same with the rows of a value side by side
    std::vector<uint8_t> block_;
};

}  // namespace dualfast
