// One function, compiled for three instruction sets and chosen when it is called. Not target_clones: here a test can
// ask for less than the processor has, and compare.
#pragma once

namespace dualfast {

// 2: x86-64-v4 (AVX-512), 1: x86-64-v3 (AVX2), 0: what every processor has.
inline int highest_level() {
#if defined(__x86_64__)
    static const int level = __builtin_cpu_supports("x86-64-v4") ? 2 : __builtin_cpu_supports("x86-64-v3") ? 1 : 0;
    return level;
#else
    return 0;
#endif
}
inline int& level() {
    static int chosen = highest_level();
    return chosen;
}

}  // namespace dualfast

// A function with levels can only be fast at all of them when what it calls is compiled into it.
#define INLINE inline __attribute__((always_inline))

// Defines `type name params` from an INLINE `name_at_level params`.
#if defined(__x86_64__)
#define AT_LEVELS(type, name, params, args)                                                          \
    __attribute__((target("arch=x86-64-v4"))) type name##_v4 params { return name##_at_level args; } \
    __attribute__((target("arch=x86-64-v3"))) type name##_v3 params { return name##_at_level args; } \
    type name##_v1 params { return name##_at_level args; }                                           \
    type name params {                                                                               \
        const int at = dualfast::level();                                                            \
        return at == 2 ? name##_v4 args : at == 1 ? name##_v3 args : name##_v1 args;                 \
    }
#else
#define AT_LEVELS(type, name, params, args) \
    type name params { return name##_at_level args; }
#endif
