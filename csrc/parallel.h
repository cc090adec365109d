// A parallel loop on plain threads. Not OpenMP: its threads spin for milliseconds at the end of a region and after it,
// longer than a whole selection takes when another process holds one of the cores.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace dualfast {

// The number of parts to split `count` samples into: several per thread, as one thread may be held up; a single part
// where starting a thread would take longer. No part is smaller than `least`.
inline int64_t parts_of(int64_t count, int threads, int64_t least = 1 << 14) {
    return count < 8 * least || threads == 1 ? 1 : std::min<int64_t>(8 * int64_t{threads}, count / least);
}

// Calls work(part, scratch) for each part on up to `threads` threads, the calling one included; returns when all are
// done. Each thread has a Scratch of its own. What a thread throws, such as std::bad_alloc, is thrown here.
template <class Scratch, class Work>
void for_parts(int64_t parts, int threads, const Work& work) {
    std::atomic<int64_t> next{0};
    std::exception_ptr failure;
    std::atomic<bool> failed{false};
    auto run = [&] {
        try {
            Scratch scratch;
            for (int64_t part; (part = next.fetch_add(1)) < parts;) work(part, scratch);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
            next = parts;  // the others stop
        }
    };
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(std::max(1, threads)));
    try {
        for (int64_t i = 1; i < std::min<int64_t>(threads, parts); ++i) others.emplace_back(run);
    } catch (const std::system_error&) {
        // No more threads available: the existing ones do all the work.
    }
    run();
    for (std::thread& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
}

// The same without scratch: work(part).
template <class Work>
void for_parts(int64_t parts, int threads, const Work& work) {
    struct Nothing {};
    for_parts<Nothing>(parts, threads, [&](int64_t part, Nothing&) { work(part); });
}

}  // namespace dualfast
