// Instruction-set dispatch: a function is compiled for three instruction sets ("levels") and chosen when it is called.
// Unlike target_clones, a test can ask for a lower level than the processor's and compare the results.
#pragma once

namespace dualfast {

// 2: x86-64-v4 (AVX-512), 1: x86-64-v3 (AVX2), 0: what every processor has. By what tells the levels apart: GCC 11 and
// clang 14 do not know their names here.
inline int highest_level() {
#if defined(__x86_64__)
    static const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    static const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                           __builtin_cpu_supports("avx512vl");
    return v4 ? 2 : v3 ? 1 : 0;
#else
    return 0;
#endif
}
inline int& level() {
    static int chosen = highest_level();
    return chosen;
}

}  // namespace dualfast

// What a function with levels calls must be compiled into it, or it runs at the lowest level.
#define INLINE inline __attribute__((always_inline))

// AT_LEVELS defines `type name params` from an INLINE `name_at_level params`, compiled once per level.
// CHOOSE_LEVEL defines it from name_v4, name_v3 and name_v1, each written for its own level.
#if defined(__x86_64__)
#define TARGET_V4 __attribute__((target("arch=x86-64-v4")))
#define TARGET_V3 __attribute__((target("arch=x86-64-v3")))
#define CHOOSE_LEVEL(type, name, params, args)                                       \
    type name params {                                                               \
        const int at = dualfast::level();                                            \
        return at == 2 ? name##_v4 args : at == 1 ? name##_v3 args : name##_v1 args; \
    }
#define AT_LEVELS(type, name, params, args)                          \
    TARGET_V4 type name##_v4 params { return name##_at_level args; } \
    TARGET_V3 type name##_v3 params { return name##_at_level args; } \
    type name##_v1 params { return name##_at_level args; }           \
    CHOOSE_LEVEL(type, name, params, args)
#else
#define CHOOSE_LEVEL(type, name, params, args) \
    type name params { return name##_v1 args; }
#define AT_LEVELS(type, name, params, args) \
    type name params { return name##_at_level args; }
#endif
