// Work in parts on plain threads. Not OpenMP: its threads spin for milliseconds at the end of a region and after it,
// which is more than a whole selection takes where another process holds one of the cores.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace dualfast {

// Into how many parts the threads share `count` samples: several for each, as one may be held up; one, for one thread,
// where starting another takes longer. None is smaller than `least`.
inline int64_t parts_of(int64_t count, int threads, int64_t least = 1 << 14) {
    return count < 8 * least || threads == 1 ? 1 : std::min<int64_t>(8 * int64_t{threads}, count / least);
}

// work(part) for each part, on up to `threads` threads, this one among them; returns when all are done.
template <class Work>
void for_parts(int64_t parts, int threads, const Work& work) {
    std::atomic<int64_t> next{0};
    auto run = [&] {
        for (int64_t part; (part = next.fetch_add(1)) < parts;) work(part);
    };
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < std::min<int64_t>(threads, parts); ++i) others.emplace_back(run);
    } catch (const std::system_error&) {
        // No more threads to be had: the ones there are do it all.
    }
    run();
    for (std::thread& other : others) other.join();
}

}  // namespace dualfast
