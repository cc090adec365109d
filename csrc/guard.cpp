#include "guard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <mutex>

namespace dualfast {
namespace {

struct Map {
    std::atomic<uintptr_t> begin{0};  // 0: not in use
    std::atomic<size_t> bytes{0};
    std::atomic<bool> cut{false};
};
Map maps[kMaps];
std::mutex changing;
struct sigaction before{};  // what SIGBUS did
uintptr_t page_size = 0;

// Only what a signal handler may do: system calls and atomics.
void on_bus_error(int, siginfo_t* info, void*) {
    const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
    for (Map& map : maps) {
        const uintptr_t begin = map.begin, end = begin + map.bytes;
        if (begin == 0 || at < begin || at >= end) continue;
        const uintptr_t page = at & ~(page_size - 1);
        void* zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        if (zeros == MAP_FAILED) break;
        map.cut = true;
        return;
    }
    sigaction(SIGBUS, &before, nullptr);  // not ours: the read is repeated, and meets what was there before
}

void install() {
    struct sigaction now{};
    sigaction(SIGBUS, nullptr, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error) return;
    before = now;
    page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    now = {};
    now.sa_sigaction = on_bus_error;
    now.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&now.sa_mask);
    sigaction(SIGBUS, &now, nullptr);
}

}  // namespace

int guard_map(const void* data, size_t bytes) {
    const std::lock_guard<std::mutex> lock(changing);
    for (int number = 0; number < kMaps; ++number) {
        Map& map = maps[number];
        if (map.begin != 0) continue;
        map.cut = false;
        map.bytes = bytes;
        map.begin = reinterpret_cast<uintptr_t>(data);
        install();
        return number;
    }
    return -1;
}

bool map_was_cut(int number) { return maps[number].cut; }

void release_map(int number) { maps[number].begin = 0; }

}  // namespace dualfast
