// The rows of a step, compiled once for each instruction set: step.cpp includes this with LEVEL, a namespace, and
// LANES, how many floats a vector holds.

namespace dualfast {
namespace {
namespace LEVEL {

constexpr int N = LANES;
using Floats = float __attribute__((vector_size(4 * N)));
using Ints = int32_t __attribute__((vector_size(4 * N)));

// What follows is written once for a row, F = float, and for several rows, F a vector of their floats.
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

// exp(x) for x <= 0, relative error about 1e-7 + 6e-8 |x|; no table, no branch, so that loops over it become vector
// code.
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
    return bits_as<F>(bits_as<Int<F>>(p) + (bits_as<Int<F>>(whole) << 23));
}

// log(1 + x) for x >= 0, to two units in the last place, small x too. 1 + x = 2^k (1 + f) with f in [-0.29, 0.42].
template <class F>
INLINE F log1p_pos(F x) {
    const F u = 1.0f + x, lost = x - (u - 1.0f);               // what the sum rounds away: all of a small x
    const Int<F> k = (bits_as<Int<F>>(u) - 0x3F3504F3) >> 23;  // the bits of sqrt(1/2)
    const F shrink = bits_as<F>((127 - k) << 23);
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

using Halves = uint16_t __attribute__((vector_size(8)));
INLINE Four load_four(const float* from) {
    Four out;
    std::memcpy(&out, from, sizeof out);
    return out;
}
INLINE Four load_four(const uint16_t* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return bits_as<Four>(__builtin_convertvector(halves, Pick) << 16);
}
INLINE void store_four(Four from, float* to) { std::memcpy(to, &from, sizeof from); }
INLINE void store_four(Four from, uint16_t* to) {
    const Halves halves = __builtin_convertvector(to_bfloat16(from), Halves);
    std::memcpy(to, &halves, sizeof halves);
}

// What a row's logits come to. e_j = exp(z_j - max); others leaves the true class out.
template <class F>
struct Sums {
    F max, true_logit, best_other, true_exp;
    F others;          // sum of e_j over the wrong classes
    F others_squared;  // sum of e_j^2 over the wrong classes
    F weighted;        // sum of e_j (z_j - max) over all
    F logits;          // sum of w_j (z_j - max) over all: label smoothing's term
    Mask<F> finite;    // every logit is a number, but for wrong classes at -inf
    Mask<F> lost;      // so little is finite that torch's loss is NaN
};

INLINE void load_row(const uint16_t* from, float* to, int64_t n) {
    for (int64_t c = 0; c < n; ++c) to[c] = to_float(from[c]);
}

INLINE void store_row(const float* from, uint16_t* to, int64_t n) {
    for (int64_t c = 0; c < n; ++c) from_float(from[c], to + c);
}

INLINE void row_maximum(const float* x, int64_t n, int64_t y, Sums<float>& row) {
    float best = -std::numeric_limits<float>::infinity();
    int strange = 0;
#pragma omp simd reduction(max : best) reduction(| : strange)
    for (int64_t c = 0; c < y; ++c) {
        best = x[c] > best ? x[c] : best;
        strange |= !(x[c] <= FLT_MAX);
    }
#pragma omp simd reduction(max : best) reduction(| : strange)
    for (int64_t c = y + 1; c < n; ++c) {
        best = x[c] > best ? x[c] : best;
        strange |= !(x[c] <= FLT_MAX);
    }
    row.true_logit = x[y];
    row.best_other = best;
    row.max = best > x[y] ? best : x[y];
    row.lost = strange || !(x[y] <= FLT_MAX) || !(row.max >= -FLT_MAX);
    row.finite = !row.lost && x[y] >= -FLT_MAX;
}

INLINE void row_exponentials(const float* x, float* e, int64_t n, float max, float* sum) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t c = 0; c < n; ++c) {
        e[c] = exp_neg(x[c] - max);
        total += e[c];
    }
    *sum = total;
}

INLINE void row_exponentials_all(const float* x, float* e, int64_t n, float max, float* sum, float* squares,
                                 float* weighted) {
    float total = 0, square = 0, times = 0;
#pragma omp simd reduction(+ : total, square, times)
    for (int64_t c = 0; c < n; ++c) {
        const float d = x[c] - max, v = exp_neg(d);
        e[c] = v;
        total += v;
        square += v * v;
        times += v * (d < -87.0f ? -87.0f : d);
    }
    *sum = total;
    *squares = square;
    *weighted = times;
}

INLINE float row_sum(const float* x, int64_t n) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t c = 0; c < n; ++c) total += x[c];
    return total;
}

INLINE void row_scale(float* e, int64_t n, float factor) {
#pragma omp simd
    for (int64_t c = 0; c < n; ++c) e[c] *= factor;
}

// sum of w_j (z_j - max); w = 1 without weights.
INLINE float row_logits(const float* x, const float* weight, int64_t n, float max) {
    float total = 0;
    if (weight) {
#pragma omp simd reduction(+ : total)
        for (int64_t c = 0; c < n; ++c) total += weight[c] * (x[c] - max);
    } else {
#pragma omp simd reduction(+ : total)
        for (int64_t c = 0; c < n; ++c) total += x[c] - max;
    }
    return total;
}

// g_j = a e_j - b w_j: the gradient but for the true class's own term.
INLINE void row_gradient(float* e, const float* weight, int64_t n, float a, float b) {
    if (weight) {
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) e[c] = a * e[c] - b * weight[c];
    } else {
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) e[c] = a * e[c] - b;
    }
}

template <class F>
struct Row {
    F loss, nll, a, b, true_gradient, p, margin, el2n, entropy;
    Mask<F> correct, finite;
};

// log, sqrt and the rest of what happens once a row; own: the weight of the true class.
template <class F>
INLINE Row<F> finish(const Sums<F>& sums, const Terms& terms, const F& own) {
    const F inverse = 1.0f / (sums.others + sums.true_exp);
    const F p = sums.true_exp * inverse, q = sums.others * inverse;  // q = 1 - p without cancellation
    Row<F> out;
    out.p = p;
    out.finite = sums.finite;
    out.correct = sums.true_logit > sums.best_other;
    // The largest of the exponentials is 1. Where it is the true class's, the others keep all their digits.
    const F rest = out.correct ? sums.others : sums.others + sums.true_exp - 1.0f;
    const F log_total = log1p_pos(rest);
    const F hard = terms.hard * own, zero{};
    const float soft = terms.soft, nan = std::numeric_limits<float>::quiet_NaN();
    out.nll = (sums.max - sums.true_logit) + log_total;
    const F loss = hard * out.nll + soft * (terms.weight_sum * log_total - sums.logits);
    const F a = terms.scale * inverse * (hard + soft * terms.weight_sum);
    const F true_gradient = terms.scale * (soft * (terms.weight_sum * p - own) - hard * q);
    // A true class at -inf alone has an infinite loss and an ordinary gradient, as in torch.
    out.loss = sums.finite ? loss : zero + std::numeric_limits<float>::infinity();
    out.loss = sums.lost ? zero + nan : out.loss;
    out.a = sums.lost ? zero + nan : a;
    out.b = sums.lost ? zero + nan : zero + terms.scale * soft;
    out.true_gradient = sums.lost ? zero + nan : true_gradient;
    out.margin = out.el2n = out.entropy = zero;
    if (terms.by_products) {
        out.margin = sums.true_logit - sums.best_other;
        out.el2n = root<F>(sums.others_squared * inverse * inverse + q * q);
        const F entropy = log_total - sums.weighted * inverse;
        out.entropy = entropy > 0.0f ? entropy : zero;
    }
    return out;
}

INLINE void fetch_line(const Step& args, int64_t row) {
    if (!args.lines || row >= args.rows) return;
    // As numbers: the index of a row that does not count may be anything.
    const uint64_t bytes = static_cast<uint64_t>(args.index[row]) * static_cast<uint64_t>(args.layout.words) * 4;
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(args.lines) + bytes), 1);
}

// Not inlined, nor multiplied and added at once: a line is to have the same bytes whoever folds into it.
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
__attribute__((noinline)) void record(const Work& work, int64_t row, const Row<float>& out, int64_t& strange) {
    const Step& args = work.args;
    if (!args.lines || !work.counted[static_cast<size_t>(row)]) return;
    const int64_t id = args.index[row];
    const Observation seen{out.p, out.margin, out.el2n, out.entropy, out.correct, out.finite};
    if (fold(args.lines + id * args.layout.words, args.layout, seen) && args.loss_sums) args.loss_sums[id] += out.nll;
    strange += !seen.finite;
}
#pragma GCC pop_options

template <class T>
INLINE void run_row(const Work& work, int64_t row, float* scratch, int64_t& strange) {
    const Step& args = work.args;
    const int64_t n = args.classes, y = args.targets[row];
    const T* x = static_cast<const T*>(args.logits) + row * args.logits_stride;
    T* grad = args.grad ? static_cast<T*>(args.grad) + row * args.grad_stride : nullptr;
    if (y == args.ignore_index) {
        args.loss[row] = 0;
        if (grad) std::fill(grad, grad + n, T(0));
        return;
    }
    const float* z;
    float* e;
    if constexpr (std::is_same_v<T, float>) {
        z = x;
        e = grad ? grad : scratch;
    } else {
        load_row(x, scratch, n);
        z = e = scratch;
    }
    Sums<float> sums{};
    row_maximum(z, n, y, sums);
    if (args.smoothing > 0) sums.logits = row_logits(z, args.weight, n, sums.max);
    float total, squares = 0;
    if (args.by_products) {
        row_exponentials_all(z, e, n, sums.max, &total, &squares, &sums.weighted);
    } else {
        row_exponentials(z, e, n, sums.max, &total);
    }
    sums.true_exp = e[y];
    sums.others = total - sums.true_exp;
    sums.others_squared = std::max(squares - sums.true_exp * sums.true_exp, 0.0f);
    if (sums.true_exp > 0.5f * total) {
        // A confident row: the wrong classes are summed again, so that 1 - p keeps its digits.
        const float own = e[y];
        e[y] = 0;
        sums.others = row_sum(e, n);
        if (args.by_products) {
            float again = 0;
            for (int64_t c = 0; c < n; ++c) again += e[c] * e[c];
            sums.others_squared = again;
        }
        e[y] = own;
    }
    const Row<float> out = finish<float>(sums, work.terms, args.weight ? args.weight[y] : 1.0f);
    args.loss[row] = out.loss;
    if (grad) {
        if (out.b != 0) {
            row_gradient(e, args.weight, n, out.a, out.b);
        } else {
            row_scale(e, n, out.a);
        }
        e[y] = out.true_gradient;
        if constexpr (!std::is_same_v<T, float>) store_row(e, grad, n);
    }
    record(work, row, out, strange);
}

// Transposing, in tiles of four rows by four classes: gathering and scattering would take longer.
INLINE void transpose(Four (&v)[4]) {
    const Four a = __builtin_shuffle(v[0], v[1], Pick{0, 4, 1, 5}), b = __builtin_shuffle(v[0], v[1], Pick{2, 6, 3, 7});
    const Four c = __builtin_shuffle(v[2], v[3], Pick{0, 4, 1, 5}), d = __builtin_shuffle(v[2], v[3], Pick{2, 6, 3, 7});
    v[0] = __builtin_shuffle(a, c, Pick{0, 1, 4, 5});
    v[1] = __builtin_shuffle(a, c, Pick{2, 3, 6, 7});
    v[2] = __builtin_shuffle(b, d, Pick{0, 1, 4, 5});
    v[3] = __builtin_shuffle(b, d, Pick{2, 3, 6, 7});
}

// tile(first row, first class) for all tiles of a block; the last one of a row overlaps, not to reach past the classes.
template <class Tile>
INLINE void for_tiles(int classes, const Tile& tile) {
    for (int r = 0; r < N; r += 4) {
        for (int c = 0; c < classes; c += 4) tile(r, std::min(c, classes - 4));
    }
}

template <class T>
INLINE void block_load(const T* from, int64_t stride, float* to, int rows, int classes) {
    const auto row = [&](int r) { return from + std::min(r, rows - 1) * stride; };
    if (classes < 4) {
        for (int r = 0; r < N; ++r) {
            for (int c = 0; c < classes; ++c) to[c * N + r] = to_float(row(r)[c]);
        }
        return;
    }
    for_tiles(classes, [&](int r, int c) {
        Four tile[4];
        for (int k = 0; k < 4; ++k) tile[k] = load_four(row(r + k) + c);
        transpose(tile);
        for (int k = 0; k < 4; ++k) store_four(tile[k], to + (c + k) * N + r);
    });
}

template <class T>
INLINE void block_store(const float* from, T* to, int64_t stride, int rows, int classes) {
    const auto row = [&](int r) { return to + std::min(r, rows - 1) * stride; };
    if (classes < 4) {
        for (int r = 0; r < N; ++r) {
            for (int c = 0; c < classes; ++c) from_float(from[c * N + r], row(r) + c);
        }
        return;
    }
    for_tiles(classes, [&](int r, int c) {
        Four tile[4];
        for (int k = 0; k < 4; ++k) tile[k] = load_four(from + (c + k) * N + r);
        transpose(tile);
        for (int k = 0; k < 4; ++k) store_four(tile[k], row(r + k) + c);
    });
}

template <class F>
INLINE F vector_at(const void* from) {
    F out;
    std::memcpy(&out, from, sizeof out);
    return out;
}

// Few classes: a block of N rows, as many as a vector has lanes, is transposed, so that no lane is idle. Past the end
// of the batch the last row is repeated: its gradient is written again, the same.
template <class T>
INLINE void run_block(const Work& work, int64_t first, int rows, int64_t& strange) {
    const Step& args = work.args;
    const int classes = static_cast<int>(args.classes);
    int32_t targets[N], keep[N];
    float weights[N];
    for (int r = 0; r < N; ++r) {
        const int64_t target = args.targets[first + std::min(r, rows - 1)];
        keep[r] = target == args.ignore_index ? 0 : -1;
        targets[r] = static_cast<int32_t>(target) & keep[r];
        weights[r] = args.weight ? args.weight[targets[r]] : 1.0f;
    }
    const Ints y = vector_at<Ints>(targets), kept = vector_at<Ints>(keep);
    alignas(64) Floats x[kSmall];  // of a class: logits, then exponentials, then gradient
    float* scalars = reinterpret_cast<float*>(x);
    block_load(static_cast<const T*>(args.logits) + first * args.logits_stride, args.logits_stride, scalars, rows,
               classes);

    const Floats low = Floats{} - std::numeric_limits<float>::infinity();
    Sums<Floats> sums{};
    sums.best_other = low;
    Ints strange_logits{};
    for (int c = 0; c < classes; ++c) {
        const Ints own = y == c;
        const Floats other = own ? low : x[c];
        sums.true_logit = own ? x[c] : sums.true_logit;
        sums.best_other = other > sums.best_other ? other : sums.best_other;
        strange_logits |= ~(x[c] <= FLT_MAX);
    }
    sums.max = sums.best_other > sums.true_logit ? sums.best_other : sums.true_logit;
    sums.lost = strange_logits | ~(sums.max >= -FLT_MAX);
    sums.finite = ~sums.lost & (sums.true_logit >= -FLT_MAX);
    // Sums of sums of a few classes: one long sum loses digits with each class.
    for (int begin = 0; begin < classes; begin += kGroup) {
        const int end = std::min(begin + kGroup, classes);
        Floats others{}, others_squared{}, weighted{}, logits{};
        if (args.smoothing > 0) {
            for (int c = begin; c < end; ++c) logits += (args.weight ? args.weight[c] : 1.0f) * (x[c] - sums.max);
        }
        for (int c = begin; c < end; ++c) {
            const Floats d = x[c] - sums.max, e = exp_neg(d), other = y == c ? Floats{} : e;
            x[c] = e;
            others += other;
            others_squared += other * other;
            weighted += e * (d < -87.0f ? -87.0f : d);
        }
        sums.others += others;
        sums.others_squared += others_squared;
        sums.weighted += weighted;
        sums.logits += logits;
    }
    sums.true_exp = exp_neg(sums.true_logit - sums.max);

    const Row<Floats> out = finish<Floats>(sums, work.terms, vector_at<Floats>(weights));
    const Floats loss = kept ? out.loss : Floats{};
    std::memcpy(args.loss + first, &loss, static_cast<size_t>(rows) * sizeof(float));
    if (args.grad) {
        for (int c = 0; c < classes; ++c) {
            const Floats other = out.a * x[c] - out.b * (args.weight ? args.weight[c] : 1.0f);
            x[c] = kept ? (y == c ? out.true_gradient : other) : Floats{};
        }
        block_store(scalars, static_cast<T*>(args.grad) + first * args.grad_stride, args.grad_stride, rows, classes);
    }
    for (int r = 0; r < rows; ++r) {
        fetch_line(args, first + r + kAhead);  // one at a time: a processor waits for few lines at once
        Row<float> one;
        one.nll = out.nll[r];
        one.p = out.p[r];
        one.margin = out.margin[r];
        one.el2n = out.el2n[r];
        one.entropy = out.entropy[r];
        one.correct = out.correct[r] != 0;
        one.finite = out.finite[r] != 0;
        record(work, first + r, one, strange);
    }
}

template <class T>
INLINE int64_t run_rows(const Work& work, int64_t begin, int64_t end) {
    int64_t strange = 0;
    for (int64_t row = begin; row < std::min(begin + kAhead, end); ++row) fetch_line(work.args, row);
    if (work.args.classes <= kSmall) {
        for (int64_t row = begin; row < end; row += N) {
            run_block<T>(work, row, static_cast<int>(std::min<int64_t>(N, end - row)), strange);
        }
        return strange;
    }
    std::vector<float> scratch(static_cast<size_t>(work.args.classes));
    for (int64_t row = begin; row < end; ++row) {
        fetch_line(work.args, row + kAhead);
        run_row<T>(work, row, scratch.data(), strange);
    }
    return strange;
}

// Rows begin to end, which one thread takes; returns how many of the recorded ones were not finite.
int64_t rows(const Work& work, int64_t begin, int64_t end) {
    return work.args.type == Logits::kFloat32 ? run_rows<float>(work, begin, end)
                                              : run_rows<uint16_t>(work, begin, end);
}

}  // namespace LEVEL
}  // namespace
}  // namespace dualfast

#undef LEVEL
#undef LANES
