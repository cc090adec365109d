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

// How many threads it is worth starting for them.
inline size_t threads_of(int64_t parts, int threads) {
    return static_cast<size_t>(std::max<int64_t>(1, std::min<int64_t>(threads, parts)));
}

// Calls run(i) for i in 0..count-1, each on a thread of its own, the last on the calling one; returns when all are
// done. What a thread throws, such as std::bad_alloc, is thrown here.
template <class Run>
void on_threads(int64_t count, const Run& run) {
    std::exception_ptr failure;
    std::atomic<bool> failed{false};
    auto guarded = [&](int64_t i) {
        try {
            run(i);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(std::max<int64_t>(1, count)));
    int64_t started = 0;
    try {
        for (; started < count - 1; ++started) others.emplace_back(guarded, started);
    } catch (const std::system_error&) {
        // No more threads available: the existing ones do all the work.
    }
    guarded(started);
    for (std::thread& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
}

// Calls work(part) for the parts that no thread has taken; when it throws, the other threads stop.
template <class Work>
void take_parts(std::atomic<int64_t>& next, int64_t parts, const Work& work) {
    try {
        for (int64_t part; (part = next.fetch_add(1)) < parts;) work(part);
    } catch (...) {
        next = parts;
        throw;
    }
}

// Calls work(part, scratch) for each part on up to `threads` threads, the calling one included; returns when all are
// done. Each thread has a Scratch of its own. Throws as on_threads does.
template <class Scratch, class Work>
void for_parts(int64_t parts, int threads, const Work& work) {
    std::atomic<int64_t> next{0};
    on_threads(std::min<int64_t>(threads, parts), [&](int64_t) {
        Scratch scratch;
        take_parts(next, parts, [&](int64_t part) { work(part, scratch); });
    });
}

// The same with the scratches given, one per thread, for what the threads sum up.
template <class Scratch, class Work>
void for_parts(int64_t parts, std::vector<Scratch>& scratches, const Work& work) {
    std::atomic<int64_t> next{0};
    on_threads(static_cast<int64_t>(scratches.size()), [&](int64_t thread) {
        take_parts(next, parts, [&](int64_t part) { work(part, scratches[static_cast<size_t>(thread)]); });
    });
}

// The same without scratch: work(part).
template <class Work>
void for_parts(int64_t parts, int threads, const Work& work) {
    struct Nothing {};
    for_parts<Nothing>(parts, threads, [&](int64_t part, Nothing&) { work(part); });
}

}  // namespace dualfast
