#include "crops.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "philox.h"

namespace dualfast {
namespace {

constexpr uint32_t kAugmentStream = 0x61756700;  // "aug" and the number of the attempt
constexpr uint32_t kFlipStream = 0x666C6970;     // "flip"
constexpr uint32_t kAttempts = 10;

double unit(uint32_t word) { return (word + 0.5) * 0x1p-32; }

// An integer in [0, n), n >= 1.
int32_t below(uint32_t word, int64_t n) {
    return static_cast<int32_t>((static_cast<uint64_t>(word) * static_cast<uint64_t>(n)) >> 32);
}

// The largest box of the output's shape times `fraction`, in the middle of the image.
Box centered(int32_t height, int32_t width, const CropSpec& spec, double fraction) {
    const double scale =
        std::min(static_cast<double>(height) / spec.out_height, static_cast<double>(width) / spec.out_width) * fraction;
    Box box{};
    box.height = std::clamp(static_cast<int32_t>(std::lround(spec.out_height * scale)), 1, height);
    box.width = std::clamp(static_cast<int32_t>(std::lround(spec.out_width * scale)), 1, width);
    box.top = (height - box.height) / 2;
    box.left = (width - box.width) / 2;
    return box;
}

// fraction: part of the largest box; 1 is all of it.
Box center_box(int64_t, int32_t height, int32_t width, const CropSpec& spec, uint64_t, uint32_t) {
    return centered(height, width, spec, spec.parameters[0]);
}

// pad: the largest shift, in output pixels.
Box padded_box(int64_t id, int32_t height, int32_t width, const CropSpec& spec, uint64_t seed, uint32_t epoch) {
    const Philox draw = philox4x32(static_cast<uint64_t>(id), epoch, kAugmentStream, seed);
    Box box = centered(height, width, spec, 1.0);
    const auto shift = [&](uint32_t word, int32_t size, int32_t out) {
        const int64_t reach = std::llround(spec.parameters[0] * size / out);
        return static_cast<int32_t>(below(word, 2 * reach + 1) - reach);
    };
    box.top += shift(draw[0], box.height, spec.out_height);
    box.left += shift(draw[1], box.width, spec.out_width);
    return box;
}

// scale (2): area of the box over the image's; ratio (2): width over height, drawn log-uniformly. The first attempt
// that fits, else the middle.
Box resized_box(int64_t id, int32_t height, int32_t width, const CropSpec& spec, uint64_t seed, uint32_t epoch) {
    const double *scale = spec.parameters, *ratios = spec.parameters + 2;
    const double area = static_cast<double>(height) * width;
    const double low = std::log(ratios[0]), high = std::log(ratios[1]);
    for (uint32_t attempt = 0; attempt < kAttempts; ++attempt) {
        const Philox draw = philox4x32(static_cast<uint64_t>(id), epoch, kAugmentStream + attempt, seed);
        const double target = area * (scale[0] + (scale[1] - scale[0]) * unit(draw[0]));
        const double ratio = std::exp(low + (high - low) * unit(draw[1]));
        const auto w = static_cast<int32_t>(std::lround(std::sqrt(target * ratio)));
        const auto h = static_cast<int32_t>(std::lround(std::sqrt(target / ratio)));
        if (w >= 1 && w <= width && h >= 1 && h <= height) {
            return {below(draw[2], height - h + 1), below(draw[3], width - w + 1), h, w, 0};
        }
    }
    const double ratio = std::clamp(static_cast<double>(width) / height, ratios[0], ratios[1]);
    const int32_t w = std::clamp(static_cast<int32_t>(std::lround(height * ratio)), 1, width);
    const int32_t h = std::clamp(static_cast<int32_t>(std::lround(width / ratio)), 1, height);
    return {(height - h) / 2, (width - w) / 2, h, w, 0};
}

constexpr CropKind kCropKinds[] = {
    {"center", 1, center_box},
    {"pad", 1, padded_box},
    {"resized", 4, resized_box},
};

}  // namespace

const CropKind* find_crop_kind(const std::string& name) {
    const auto* found = std::find_if(std::begin(kCropKinds), std::end(kCropKinds),
                                     [&](const CropKind& kind) { return name == kind.name; });
    return found == std::end(kCropKinds) ? nullptr : found;
}

void crop_boxes(const int64_t* ids, const uint16_t* heights, const uint16_t* widths, size_t n, const CropKind& kind,
                const CropSpec& spec, uint64_t seed, uint32_t epoch, Box* boxes) {
    for (size_t i = 0; i < n; ++i) {
        boxes[i] = kind.box(ids[i], heights[i], widths[i], spec, seed, epoch);
        boxes[i].flip = spec.flip && (philox4x32(static_cast<uint64_t>(ids[i]), epoch, kFlipStream, seed)[0] & 1U) != 0;
    }
}

}  // namespace dualfast
