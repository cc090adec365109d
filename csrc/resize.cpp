#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#if defined(__SSE__)
#include <immintrin.h>
#endif

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

INLINE void set_row_at_level(const uint8_t* in, float weight, float* line, int n) {
    for (int i = 0; i < n; ++i) line[i] = weight * static_cast<float>(in[i]);
}
AT_LEVELS(void, set_row, (const uint8_t* in, float weight, float* line, int n), (in, weight, line, n))

INLINE void add_row_at_level(const uint8_t* in, float weight, float* line, int n) {
    for (int i = 0; i < n; ++i) line[i] += weight * static_cast<float>(in[i]);
}
AT_LEVELS(void, add_row, (const uint8_t* in, float weight, float* line, int n), (in, weight, line, n))

// lanes[i kBlockRows + r] = lines[r stride + i] for i < n, which is a multiple of 4.
void interleave(const float* lines, size_t stride, float* lanes, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        for (int r = 0; r < kBlockRows; r += 4) {
            const float* in = lines + r * stride + i;
            float* out = lanes + i * kBlockRows + r;
#if defined(__SSE__)
            __m128 a = _mm_loadu_ps(in), b = _mm_loadu_ps(in + stride);
            __m128 c = _mm_loadu_ps(in + 2 * stride), d = _mm_loadu_ps(in + 3 * stride);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            _mm_storeu_ps(out, a);
            _mm_storeu_ps(out + kBlockRows, b);
            _mm_storeu_ps(out + 2 * kBlockRows, c);
            _mm_storeu_ps(out + 3 * kBlockRows, d);
#else
            for (int row = 0; row < 4; ++row) {
                for (int value = 0; value < 4; ++value) out[value * kBlockRows + row] = in[row * stride + value];
            }
#endif
        }
    }
}

// One value of each row of a block.
typedef float Values __attribute__((vector_size(4 * kBlockRows), aligned(4)));
typedef int32_t WholeValues __attribute__((vector_size(4 * kBlockRows)));
typedef uint8_t Bytes __attribute__((vector_size(kBlockRows), aligned(1)));

INLINE void resize_rows_at_level(const float* lanes, const Axis& axis, uint8_t* block, int width) {
    constexpr float half = 0.5F, most = 255.0F;
    const int taps = axis.taps;
    for (int x = 0; x < width; ++x) {
        const auto* in = reinterpret_cast<const Values*>(lanes) + 3 * static_cast<size_t>(axis.first[x]);
        const float* weight = axis.weight.data() + static_cast<size_t>(x) * taps;
        Values sums[3] = {Values{} + half, Values{} + half, Values{} + half};
        for (int k = 0; k < taps; ++k) {
            for (int c = 0; c < 3; ++c) sums[c] += weight[k] * in[3 * k + c];
        }
        for (int c = 0; c < 3; ++c) {
            const Values capped = sums[c] < most ? sums[c] : Values{} + most;
            const auto bytes = __builtin_convertvector(__builtin_convertvector(capped, WholeValues), Bytes);
            std::memcpy(block + (3 * static_cast<size_t>(x) + c) * kBlockRows, &bytes, sizeof bytes);
        }
    }
}
AT_LEVELS(void, resize_rows, (const float* lanes, const Axis& axis, uint8_t* block, int width),
          (lanes, axis, block, width))

}  // namespace

void Resizer::start(const Tile& tile, int height, int width) {
    tile_ = tile, height_ = height, width_ = width;
    set_weights(rows_, tile.rows, height);
    set_weights(columns_, tile.columns, width);
    values_ = pixels_of(tile.columns) * 3;
    const size_t stride = (static_cast<size_t>(values_) + 3) / 4 * 4;
    lines_.resize(stride * kBlockRows);
    lanes_.resize(stride * kBlockRows);
    block_.resize(static_cast<size_t>(width) * 3 * kBlockRows);
}

const uint8_t* Resizer::block(int y) {
    const size_t stride = lines_.size() / kBlockRows;
    for (int r = 0; r < std::min(kBlockRows, height_ - y); ++r) {
        float* line = lines_.data() + r * stride;
        const float* weight = rows_.weight.data() + static_cast<size_t>(y + r) * rows_.taps;
        const uint8_t* in = tile_.pixels + rows_.first[y + r] * tile_.row_bytes;
        set_row(in, weight[0], line, values_);
        for (int k = 1; k < rows_.taps; ++k) {
            if (weight[k] != 0.0F) add_row(in + k * tile_.row_bytes, weight[k], line, values_);
        }
    }
    interleave(lines_.data(), stride, lanes_.data(), stride);
    resize_rows(lanes_.data(), columns_, block_.data(), width_);
    return block_.data();
}

}  // namespace dualfast
