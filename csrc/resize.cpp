#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "levels.h"

namespace dualfast {
namespace {

int pixels_of(const Span& span) { return static_cast<int>(std::ceil(span.start + span.size)); }

void set_weights(Axis& axis, const Span& span, int out) {
    const double scale = span.size / out, radius = std::max(scale, 1.0);
    const int in = pixels_of(span);
    axis.taps = std::min(in, static_cast<int>(std::ceil(2 * radius)));
    axis.first.resize(out);
    axis.weight.assign(static_cast<size_t>(out) * axis.taps, 0.0F);
    for (int i = 0; i < out; ++i) {
        const double center = span.start + (i + 0.5) * scale;
        const int low = std::max(0, static_cast<int>(center - radius + 0.5));
        const int high = std::min({in, static_cast<int>(center + radius + 0.5), low + axis.taps});
        const int first = std::min(low, in - axis.taps);
        float* weight = &axis.weight[static_cast<size_t>(i) * axis.taps];
        double sum = 0;
        for (int k = low; k < high; ++k) {
            const double w = std::max(0.0, 1.0 - std::abs((k + 0.5 - center) / radius));
            weight[k - first] = static_cast<float>(w);
            sum += w;
        }
        for (int k = 0; k < axis.taps; ++k) weight[k] = static_cast<float>(weight[k] / sum);
        axis.first[i] = first;
    }
}

INLINE void add_row_at_level(const uint8_t* in, float weight, float* line, int n) {
    for (int i = 0; i < n; ++i) line[i] += weight * static_cast<float>(in[i]);
}
AT_LEVELS(void, add_row, (const uint8_t* in, float weight, float* line, int n), (in, weight, line, n))

// A pixel's three values and, read or written with them, the next one's first.
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));
typedef uint8_t FourBytes __attribute__((vector_size(4)));

INLINE void resize_row_at_level(const float* line, const Axis& axis, uint8_t* out, int width) {
    const int taps = axis.taps;
    for (int x = 0; x < width; ++x) {
        const float* in = line + static_cast<size_t>(axis.first[x]) * 3;
        const float* weight = axis.weight.data() + static_cast<size_t>(x) * taps;
        Four sum{0.5F, 0.5F, 0.5F, 0.5F};
        for (int k = 0; k < taps; ++k) {
            Four pixel;
            std::memcpy(&pixel, in + 3 * k, sizeof pixel);
            sum += weight[k] * pixel;
        }
        const Four most{255.0F, 255.0F, 255.0F, 255.0F};
        const auto whole = __builtin_convertvector(sum < most ? sum : most, FourInts);
        const auto bytes = __builtin_convertvector(whole, FourBytes);
        std::memcpy(out + 3 * x, &bytes, sizeof bytes);
    }
}
AT_LEVELS(void, resize_row, (const float* line, const Axis& axis, uint8_t* out, int width), (line, axis, out, width))

}  // namespace

void resize_rgb(const Tile& in, uint8_t* out, int out_height, int out_width, ResizeScratch& scratch) {
    set_weights(scratch.rows, in.rows, out_height);
    set_weights(scratch.columns, in.columns, out_width);
    const int values = pixels_of(in.columns) * 3;
    scratch.line.resize(static_cast<size_t>(values) + 1);  // resize_row reads one past the last pixel
    for (int y = 0; y < out_height; ++y) {
        std::fill(scratch.line.begin(), scratch.line.end(), 0.0F);
        const float* weight = scratch.rows.weight.data() + static_cast<size_t>(y) * scratch.rows.taps;
        for (int k = 0; k < scratch.rows.taps; ++k) {
            if (weight[k] != 0.0F) {
                const uint8_t* row = in.pixels + (scratch.rows.first[y] + k) * in.row_bytes;
                add_row(row, weight[k], scratch.line.data(), values);
            }
        }
        resize_row(scratch.line.data(), scratch.columns, out + static_cast<size_t>(y) * out_width * 3, out_width);
    }
}

}  // namespace dualfast
