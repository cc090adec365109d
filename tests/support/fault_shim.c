// Preloaded into a process: counts its calls that change files and its large allocations, and lets one of them fail.
//
//     fault_arm(where, target, how, error)   from here on: where 0 files, 1 memory; target the number of the call, from 0
//     fault_count(where), fault_calls()      how many there were, and a letter for each that changed a file
//     fault_fired()                          whether the target was reached
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FILES, MEMORY };
enum { COUNT, KILL, TEAR, ONCE, STICKY };  // TEAR writes half, then kills; STICKY: all further calls fail too
enum { LARGE = 1 << 14 };                  // bytes; smaller allocations come from what the process has already

static atomic_int armed, fired;
static atomic_long counts[2];
static long target;
static int class, how, error;
static char calls[1 << 16];

void fault_arm(int where, long number, int kind, int code) {
    class = where, target = number, how = kind, error = code;
    counts[0] = counts[1] = fired = 0;
    armed = 1;
}
void fault_disarm(void) { armed = 0; }
long fault_count(int where) { return counts[where]; }
int fault_fired(void) { return fired; }
const char* fault_calls(void) { return calls; }

// What the call is to do: 0 as usual, ONCE fail, TEAR write half and kill.
static int decide(int where, char letter) {
    if (!armed) return 0;
    const long number = counts[where]++;
    if (where == FILES && number < (long)sizeof calls - 1) calls[number] = letter;
    if (how == COUNT || where != class || number < target || (number > target && how != STICKY)) return 0;
    fired = 1;
    if (how == KILL || (how == TEAR && letter != 'w')) kill(getpid(), SIGKILL);
    if (how == TEAR) return TEAR;
    errno = error;
    return ONCE;
}

static int on_file(int fd) {
    struct stat status;
    const int before = errno;
    const int regular = fd > 2 && fstat(fd, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
    errno = before;
    return regular;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define WRITES(name, result, rest, half, ...)                       \
    result name rest {                                              \
        switch (on_file(fd) ? decide(FILES, 'w') : 0) {             \
            case ONCE:                                              \
                return -1;                                          \
            case TEAR:                                              \
                half;                                               \
                kill(getpid(), SIGKILL);                            \
        }                                                           \
        return REAL(name)(__VA_ARGS__);                             \
    }
WRITES(write, ssize_t, (int fd, const void* data, size_t n), (void)!REAL(write)(fd, data, n / 2), fd, data, n)
WRITES(pwrite, ssize_t, (int fd, const void* data, size_t n, off_t at), (void)!REAL(pwrite)(fd, data, n / 2, at), fd,
       data, n, at)
WRITES(pwrite64, ssize_t, (int fd, const void* data, size_t n, off64_t at), (void)!REAL(pwrite64)(fd, data, n / 2, at),
       fd, data, n, at)
WRITES(writev, ssize_t, (int fd, const struct iovec* v, int n), (void)!REAL(writev)(fd, v, n / 2), fd, v, n)
WRITES(copy_file_range, ssize_t, (int in, off64_t* from, int fd, off64_t* to, size_t n, unsigned flags),
       (void)!REAL(copy_file_range)(in, from, fd, to, n / 2, flags), in, from, fd, to, n, flags)

#define CHANGES(name, letter, file, rest, ...)                      \
    int name rest {                                                 \
        if ((file) && decide(FILES, letter) == ONCE) return -1;     \
        return REAL(name)(__VA_ARGS__);                             \
    }
CHANGES(ftruncate, 't', on_file(fd), (int fd, off_t n), fd, n)
CHANGES(ftruncate64, 't', on_file(fd), (int fd, off64_t n), fd, n)
CHANGES(fsync, 's', on_file(fd), (int fd), fd)
CHANGES(fdatasync, 's', on_file(fd), (int fd), fd)
CHANGES(rename, 'r', 1, (const char* from, const char* to), from, to)
CHANGES(renameat, 'r', 1, (int a, const char* from, int b, const char* to), a, from, b, to)
CHANGES(unlink, 'u', 1, (const char* path), path)
CHANGES(unlinkat, 'u', 1, (int fd, const char* path, int flags), fd, path, flags)
CHANGES(mkdir, 'm', 1, (const char* path, mode_t mode), path, mode)

#define OPENS(name, rest, ...)                                                              \
    int name rest {                                                                         \
        mode_t mode = 0;                                                                    \
        if (flags & O_CREAT) {                                                              \
            va_list more;                                                                   \
            va_start(more, flags);                                                          \
            mode = va_arg(more, mode_t);                                                    \
            va_end(more);                                                                   \
            if (decide(FILES, 'o') == ONCE) return -1;                                      \
        }                                                                                   \
        return REAL(name)(__VA_ARGS__);                                                     \
    }
OPENS(open, (const char* path, int flags, ...), path, flags, mode)
OPENS(open64, (const char* path, int flags, ...), path, flags, mode)
OPENS(openat, (int at, const char* path, int flags, ...), at, path, flags, mode)
OPENS(openat64, (int at, const char* path, int flags, ...), at, path, flags, mode)

// Not the pieces of 16 KiB for the interpreter's stack: without one, Thread.start() of Python 3.11 waits for ever.
#define MAPS(name, offset_type)                                                             \
    void* name(void* at, size_t n, int access, int flags, int fd, offset_type offset) {     \
        if ((fd >= 0 || n > LARGE) && decide(MEMORY, 'm') == ONCE) return MAP_FAILED;       \
        return REAL(name)(at, n, access, flags, fd, offset);                                \
    }
MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);
#define FAILS(n) ((n) >= LARGE && decide(MEMORY, 'a') == ONCE)
void* malloc(size_t n) { return FAILS(n) ? NULL : __libc_malloc(n); }
void* calloc(size_t count, size_t n) { return FAILS(count * n) ? NULL : __libc_calloc(count, n); }
void* realloc(void* old, size_t n) { return FAILS(n) ? NULL : __libc_realloc(old, n); }
void* memalign(size_t by, size_t n) { return FAILS(n) ? NULL : __libc_memalign(by, n); }
void* aligned_alloc(size_t by, size_t n) { return memalign(by, n); }
int posix_memalign(void** out, size_t by, size_t n) {
    if (FAILS(n)) return ENOMEM;
    *out = __libc_memalign(by, n);
    return *out ? 0 : ENOMEM;
}
