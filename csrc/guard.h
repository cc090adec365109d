// Reads past the end of a mapped file that was cut short: they give zeros and are noted, instead of ending the process.
#pragma once
#include <cstddef>

namespace dualfast {

constexpr int kMaps = 64;  // guarded at a time

// Guards the `bytes` of a mapping from `data` on, page-aligned, until release_map. Returns its number, or -1 when too
// many are guarded already.
int guard_map(const void* data, size_t bytes);

// Whether something was read where the file has ended.
bool map_was_cut(int number);

void release_map(int number);

}  // namespace dualfast
