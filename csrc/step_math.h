// Included by step_rows.h: exp, log, bfloat16 and vectors of four.

// F is float for one row, or Floats for one row per lane.
template <class F>
using Mask = decltype(F() < F());  // bool, or a vector of 0 and -1
template <class F>
using Int = std::conditional_t<std::is_same_v<F, float>, int32_t, Mask<F>>;

template <class To, class From>
INLINE To bits_as(From from) {
    To to;
    static_assert(sizeof to == sizeof from);
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// value << by of the bits: a signed shift would be undefined for negative values and for bits that leave the type.
template <class I>
INLINE I shift_left(I value, int by) {
    if constexpr (std::is_arithmetic_v<I>) {
        return static_cast<I>(static_cast<uint32_t>(value) << by);
    } else {
        typedef uint32_t Unsigned __attribute__((vector_size(sizeof(I))));
        return (I)((Unsigned)value << by);
    }
}

template <class To, class From>
INLINE To convert(From from) {
    if constexpr (std::is_arithmetic_v<From>) {
        return static_cast<To>(from);
    } else {
        return __builtin_convertvector(from, To);
    }
}

template <class F>
INLINE F root(F x) {
    if constexpr (std::is_same_v<F, float>) {
        return std::sqrt(x);
    } else {
        for (size_t k = 0; k < sizeof x / sizeof(float); ++k) x[k] = std::sqrt(x[k]);
        return x;
    }
}

// exp(x) for x <= 0, relative error about 1e-7 + 6e-8 |x|; no table and no branch, so that loops over it vectorize.
template <class F>
INLINE F exp_neg(F x) {
    x = x < -87.0f ? -87.0f : x;  // also keeps x * exp(x) at zero rather than NaN for x = -inf
    const F t = x * 1.44269504088896341f;
    const F whole = t + 12582912.0f;  // 1.5 * 2^23: the nearest integer stands in the low bits
    const F f = t - (whole - 12582912.0f);
    F p = f * 1.5403530e-4f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return bits_as<F>(bits_as<Int<F>>(p) + shift_left(bits_as<Int<F>>(whole), 23));
}

// log(1 + x) for x >= 0, to two units in the last place, small x too. 1 + x = 2^k (1 + f) with f in [-0.29, 0.42].
template <class F>
INLINE F log1p_pos(F x) {
    const F u = 1.0f + x, lost = x - (u - 1.0f);               // what the sum rounds away: all of a small x
    const Int<F> k = (bits_as<Int<F>>(u) - 0x3F3504F3) >> 23;  // the bits of sqrt(1/2)
    const F shrink = bits_as<F>(shift_left(Int<F>(127 - k), 23));
    const F f = (u * shrink - 1.0f) + lost * shrink;
    F p = f * 8.7004364e-2f - 1.4267487e-1f;
    p = p * f + 1.4914765e-1f;
    p = p * f - 1.6577585e-1f;
    p = p * f + 1.9963067e-1f;
    p = p * f - 2.5001337e-1f;
    p = p * f + 3.3333911e-1f;
    const F square = f * f;
    return convert<F>(k) * 0.693147181f + (f + (square * f * p - 0.5f * square));
}

// bfloat16 is the upper half of a float: rounded to nearest, ties to even.
template <class F>
INLINE Int<F> to_bfloat16(F x) {
    const Int<F> bits = bits_as<Int<F>>(x);
    return x == x ? (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 : Int<F>{} + 0x7FC0;
}

INLINE float to_float(float x) { return x; }
INLINE float to_float(uint16_t x) { return bits_as<float>(static_cast<uint32_t>(x) << 16); }
INLINE void from_float(float x, float* to) { *to = x; }
INLINE void from_float(float x, uint16_t* to) { *to = static_cast<uint16_t>(to_bfloat16(x)); }

using Half4 = uint16_t __attribute__((vector_size(8)));
INLINE Float4 load4(const float* from) {
    Float4 out;
    std::memcpy(&out, from, sizeof out);
    return out;
}
INLINE Float4 load4(const uint16_t* from) {
    Half4 halves;
    std::memcpy(&halves, from, sizeof halves);
    return bits_as<Float4>(__builtin_convertvector(halves, Int4) << 16);
}
INLINE void store4(Float4 from, float* to) { std::memcpy(to, &from, sizeof from); }
INLINE void store4(Float4 from, uint16_t* to) {
    const Half4 halves = __builtin_convertvector(to_bfloat16(from), Half4);
    std::memcpy(to, &halves, sizeof halves);
}
