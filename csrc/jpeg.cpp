#include "jpeg.h"

#ifdef DUALFAST_JPEG
#include <cstdio>  // jpeglib.h needs it
//
#include <jpeglib.h>
#endif

#ifdef LIBJPEG_TURBO_VERSION_NUMBER  // other implementations of libjpeg cannot skip rows or columns

#include <algorithm>
#include <csetjmp>

namespace dualfast {
namespace {

#define STRINGIFY(x) #x
#define LIBRARY_NAME(version) "libjpeg-turbo " STRINGIFY(version)

struct Decoder {
    jpeg_decompress_struct info{};
    jpeg_error_mgr errors{};
    jpeg_progress_mgr progress{};
    int32_t max_scans;
    std::jmp_buf failed;

    explicit Decoder(int32_t scans) : max_scans(scans) {
        info.err = jpeg_std_error(&errors);
        info.client_data = this;
        errors.error_exit = [](j_common_ptr common) {
            std::longjmp(static_cast<Decoder*>(common->client_data)->failed, 1);
        };
        errors.emit_message = [](j_common_ptr common, int level) {
            if (level < 0)
                common->err->error_exit(common);  // a warning: the file is damaged and some pixels are guessed
        };
        progress.progress_monitor = [](j_common_ptr common) {  // called at least once per scan
            auto* info = reinterpret_cast<j_decompress_ptr>(common);
            if (info->input_scan_number > static_cast<Decoder*>(info->client_data)->max_scans) {
                common->err->error_exit(common);
            }
        };
    }
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;
    ~Decoder() { jpeg_destroy_decompress(&info); }
};

// On an error libjpeg jumps to the setjmp in this function, so it must not construct anything with a destructor.
bool decode(Decoder& decoder, const Jpeg& jpeg, int64_t max_bytes, const Region& region, int32_t max_shrink,
            std::vector<uint8_t>& buffer, Tile& tile) {
    jpeg_decompress_struct& info = decoder.info;
    if (setjmp(decoder.failed) != 0) return false;
    jpeg_create_decompress(&info);
    info.client_data = &decoder;
    info.progress = &decoder.progress;
    info.mem->max_memory_to_use = static_cast<long>(max_bytes);
    jpeg_mem_src(&info, jpeg.data, jpeg.size);
    jpeg_read_header(&info, TRUE);
    const bool known = info.jpeg_color_space == JCS_GRAYSCALE || info.jpeg_color_space == JCS_YCbCr ||
                       info.jpeg_color_space == JCS_RGB;
    if (!known || info.data_precision != 8 || static_cast<int32_t>(info.image_height) != jpeg.height ||
        static_cast<int32_t>(info.image_width) != jpeg.width) {
        return false;
    }
    // At half size 4:2:0 chroma keeps all its pixels; 4:2:2 chroma shrinks too, so shrink by half as much.
    const bool square = info.max_h_samp_factor == info.max_v_samp_factor;
    const int32_t shrink = square ? max_shrink : std::max(max_shrink / 2, 1);
    info.out_color_space = JCS_RGB;
    info.scale_num = 1;
    info.scale_denom = static_cast<unsigned>(shrink);
    jpeg_start_decompress(&info);

    // Chroma is interpolated from neighbouring columns, so decode a margin of them; libjpeg takes care of the rows.
    const int32_t margin = info.max_h_samp_factor, width = static_cast<int32_t>(info.output_width);
    const int32_t top = region.top / shrink, left = region.left / shrink;
    const int32_t bottom = (region.bottom + shrink - 1) / shrink, right = (region.right + shrink - 1) / shrink;
    auto from = static_cast<JDIMENSION>(std::max(left - margin, 0));
    auto columns = static_cast<JDIMENSION>(std::min(right + margin, width)) - from;
    if (columns < info.output_width) jpeg_crop_scanline(&info, &from, &columns);
    const auto above = static_cast<JDIMENSION>(top);
    if (above > 0 && jpeg_skip_scanlines(&info, above) != above) return false;

    const size_t row_bytes = size_t{info.output_width} * 3, rows = static_cast<size_t>(bottom - top);
    if (buffer.size() < rows * row_bytes) buffer.resize(rows * row_bytes);
    JSAMPROW row[4];
    for (size_t done = 0; done < rows;) {
        const size_t wanted = std::min<size_t>(rows - done, 4);
        for (size_t i = 0; i < wanted; ++i) row[i] = buffer.data() + (done + i) * row_bytes;
        const JDIMENSION got = jpeg_read_scanlines(&info, row, static_cast<JDIMENSION>(wanted));
        if (got == 0) return false;
        done += got;
    }
    const auto span = [shrink](int32_t begin, int32_t end) {
        return Span{static_cast<double>(begin % shrink) / shrink, static_cast<double>(end - begin) / shrink};
    };
    tile = {buffer.data() + (static_cast<size_t>(left) - from) * 3, static_cast<int64_t>(row_bytes),
            span(region.top, region.bottom), span(region.left, region.right)};
    return true;
}

}  // namespace

const char* jpeg_library() { return LIBRARY_NAME(LIBJPEG_TURBO_VERSION); }

bool decode_jpeg(const Jpeg& jpeg, const JpegLimits& limits, const Region& region, int32_t out_height,
                 int32_t out_width, std::vector<uint8_t>& buffer, Tile& tile) {
    if (int64_t{3} * jpeg.height * jpeg.width > limits.bytes) return false;
    const auto times = [&](int32_t n) {
        return region.bottom - region.top >= n * out_height && region.right - region.left >= n * out_width;
    };
    Decoder decoder(limits.scans);
    return decode(decoder, jpeg, limits.bytes, region, times(8) ? 8 : times(4) ? 4 : times(2) ? 2 : 1, buffer, tile);
}

}  // namespace dualfast

#else

namespace dualfast {

const char* jpeg_library() { return ""; }

bool decode_jpeg(const Jpeg&, const JpegLimits&, const Region&, int32_t, int32_t, std::vector<uint8_t>&, Tile&) {
    return false;
}

}  // namespace dualfast

#endif
