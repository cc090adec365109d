// libFuzzer's target for what Loader does to a JPEG: read, decode the crop, resize, place. The last 16 bytes of an
// input say where it is cut and how large the output is; all before them is the JPEG.
#include <sys/mman.h>
#include <unistd.h>

#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it
#include <cstdlib>
#include <vector>
//
#include <jpeglib.h>

#include "images.h"

namespace {

constexpr size_t kChoices = 16;
constexpr dualfast::JpegLimits kLimits{int64_t{1} << 26, 64};  // less than dualfast.config allows, to be fast

struct Errors {
    jpeg_error_mgr manager{};
    std::jmp_buf failed;
};

// The size that the file's own header names, which decode_jpeg wants to be told.
bool header(const uint8_t* data, size_t size, uint16_t& height, uint16_t& width) {
    jpeg_decompress_struct info{};
    Errors errors;
    info.err = jpeg_std_error(&errors.manager);
    errors.manager.emit_message = [](j_common_ptr, int) {};
    info.client_data = &errors;
    errors.manager.error_exit = [](j_common_ptr common) {
        std::longjmp(static_cast<Errors*>(common->client_data)->failed, 1);
    };
    if (setjmp(errors.failed) != 0) {
        jpeg_destroy_decompress(&info);
        return false;
    }
    jpeg_create_decompress(&info);
    info.client_data = &errors;
    jpeg_mem_src(&info, data, size);
    jpeg_read_header(&info, TRUE);
    height = static_cast<uint16_t>(info.image_height), width = static_cast<uint16_t>(info.image_width);
    jpeg_destroy_decompress(&info);
    return height > 0 && width > 0;
}

// A number in [low, high] for two bytes.
int32_t chosen(const uint8_t* bytes, int32_t low, int32_t high) {
    return low + (bytes[0] | bytes[1] << 8) % (high - low + 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size <= kChoices) return 0;
    size -= kChoices;
    const uint8_t* choices = data + size;
    uint16_t height = 0, width = 0;
    if (!header(data, size, height, width)) height = width = 8;
    static const int fd = memfd_create("jpeg", 0);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != static_cast<ssize_t>(size)) std::abort();

    dualfast::Box box{};
    box.height = chosen(choices, 1, 2 * height), box.width = chosen(choices + 2, 1, 2 * width);
    box.top = chosen(choices + 4, -box.height, height), box.left = chosen(choices + 6, -box.width, width);
    box.flip = choices[12] & 1;
    const int32_t elements[] = {1, 2, 4};
    const int32_t out_height = chosen(choices + 8, 1, 96), out_width = chosen(choices + 10, 1, 96);
    const int32_t element = elements[choices[13] % 3];
    // As large as they must be and no larger, so that AddressSanitizer sees a byte too many.
    std::vector<uint8_t> out(static_cast<size_t>(out_height) * out_width * 3 * element), table(3 * 256 * element),
        fill(3 * element);
    const uint64_t ptr = 0, bytes = size;
    const uint8_t mode = 0;
    int32_t status = -1;
    dualfast::load_images(fd, {1, &ptr, &bytes, &mode, &height, &width, &box},
                          {out.data(), out_height, out_width, element, table.data(), fill.data()}, kLimits, 1, &status);
    if (status != dualfast::kDone && status != dualfast::kUndecoded) std::abort();
    return 0;
}
