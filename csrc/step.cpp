#include "step.h"

#include <cfloat>
#include <limits>
#include <vector>

#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

namespace dualfast {
namespace {

constexpr int kTile = 16;           // rows a block of the small-class path
constexpr int64_t kSmall = 64;      // classes up to which vector lanes are rows
constexpr int64_t kSerial = 16384;  // elements below which one thread is faster
constexpr int64_t kAhead = 8;       // lines are fetched this many rows early

// exp(x) for x <= 0, relative error about 1e-7; no table, no branch, so that loops over it become vector code.
inline float exp_neg(float x) {
    x = x < -87.0f ? -87.0f : x;  // also keeps x * exp(x) at zero rather than NaN for x = -inf
    const float t = x * 1.44269504088896341f;
    const int32_t k = static_cast<int32_t>(t - 0.5f);
    const float f = t - static_cast<float>(k);
    float p = 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    int32_t bits;
    std::memcpy(&bits, &p, 4);
    bits += static_cast<int32_t>(static_cast<uint32_t>(k) << 23);
    std::memcpy(&p, &bits, 4);
    return p;
}

inline float to_float(float x) { return x; }
inline float to_float(uint16_t x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}
inline void from_float(float x, float* to) { *to = x; }
inline void from_float(float x, uint16_t* to) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
    *to = static_cast<uint16_t>(x == x ? rounded : 0x7FC0);
}

// What a row's logits come to. e_j = exp(z_j - max); others leaves the true class out.
struct RowSums {
    float max, true_logit, best_other, true_exp;
    float others = 0;          // sum of e_j over the wrong classes
    float others_squared = 0;  // sum of e_j^2 over the wrong classes
    float weighted = 0;        // sum of e_j (z_j - max) over all
    float logits = 0;          // sum of w_j (z_j - max) over all: label smoothing's term
    bool finite = true;        // every logit is a number, but for wrong classes at -inf
    bool lost = false;         // so little is finite that torch's loss is NaN
};

CLONES void load_row(const uint16_t* from, float* to, int64_t n) {
    for (int64_t c = 0; c < n; ++c) to[c] = to_float(from[c]);
}

CLONES void store_row(const float* from, uint16_t* to, int64_t n) {
    for (int64_t c = 0; c < n; ++c) from_float(from[c], to + c);
}

CLONES void row_maximum(const float* x, int64_t n, int64_t y, RowSums& row) {
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

CLONES void row_exponentials(const float* x, float* e, int64_t n, float max, float* sum) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t c = 0; c < n; ++c) {
        e[c] = exp_neg(x[c] - max);
        total += e[c];
    }
    *sum = total;
}

CLONES void row_exponentials_all(const float* x, float* e, int64_t n, float max, float* sum, float* squares,
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

CLONES float row_sum(const float* x, int64_t n) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t c = 0; c < n; ++c) total += x[c];
    return total;
}

CLONES void row_scale(float* e, int64_t n, float factor) {
#pragma omp simd
    for (int64_t c = 0; c < n; ++c) e[c] *= factor;
}

// sum of w_j (z_j - max); w = 1 without weights.
CLONES float row_logits(const float* x, const float* weight, int64_t n, float max) {
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
CLONES void row_gradient(float* e, const float* weight, int64_t n, float a, float b) {
    if (weight) {
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) e[c] = a * e[c] - b * weight[c];
    } else {
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) e[c] = a * e[c] - b;
    }
}

// sqrt, log and the rest of what happens once a row.
struct Row {
    float loss, nll, a, b, true_gradient;
    Observation seen;
};

Row finish(const RowSums& sums, const Step& args, int64_t y, float weight_sum) {
    const float total = sums.others + sums.true_exp, inverse = 1 / total;
    const float p = sums.true_exp * inverse, q = sums.others * inverse;  // q = 1 - p without cancellation
    const float log_total = std::log(total);
    const bool correct = sums.true_logit > sums.best_other;
    const float nll = correct ? std::log1p(sums.others / sums.true_exp) : (sums.max - sums.true_logit) + log_total;
    const float scale = args.scale;
    const float hard = (1 - args.smoothing) * (args.weight ? args.weight[y] : 1.0f);
    Row out;
    out.nll = nll;
    out.loss = hard * nll;
    float soft = 0;
    if (args.smoothing > 0) {
        soft = args.smoothing / static_cast<float>(args.classes);
        out.loss += soft * (weight_sum * log_total - sums.logits);
    }
    out.a = scale * inverse * (hard + soft * weight_sum);
    out.b = scale * soft;
    const float own = args.weight ? args.weight[y] : 1.0f;
    out.true_gradient = scale * (soft * (weight_sum * p - own) - hard * q);
    out.seen = {p, 0, 0, 0, correct, sums.finite};
    if (args.by_products) {
        out.seen.margin = sums.true_logit - sums.best_other;
        out.seen.el2n = std::sqrt(sums.others_squared * inverse * inverse + q * q);
        out.seen.entropy = std::max(log_total - sums.weighted * inverse, 0.0f);
    }
    if (!sums.finite) {
        const float nan = std::numeric_limits<float>::quiet_NaN();
        // A true class at -inf alone has an infinite loss and an ordinary gradient, as in torch.
        out.loss = sums.lost ? nan : std::numeric_limits<float>::infinity();
        if (sums.lost) out.a = out.b = out.true_gradient = nan;
    }
    return out;
}

// Which rows are recorded: `wanted` (null: all), not ignored, and the first such row of their index in the batch. Open
// addressing, no allocation a row.
int64_t counted_rows(const int64_t* index, const int64_t* targets, int64_t ignore_index, const uint8_t* wanted,
                     int64_t rows, std::vector<uint8_t>& counted) {
    size_t slots = 16;
    while (slots < static_cast<size_t>(rows) * 2) slots *= 2;
    std::vector<int64_t> table(slots, -1);
    counted.assign(static_cast<size_t>(rows), 1);
    int64_t duplicates = 0;
    for (int64_t r = 0; r < rows; ++r) {
        if ((targets && targets[r] == ignore_index) || (wanted && !wanted[r])) {
            counted[static_cast<size_t>(r)] = 0;
            continue;
        }
        const int64_t id = index[r];
        size_t slot = (static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15ull >> 20) & (slots - 1);
        while (table[slot] != -1 && table[slot] != id) slot = (slot + 1) & (slots - 1);
        if (table[slot] == id) {
            counted[static_cast<size_t>(r)] = 0;
            ++duplicates;
        }
        table[slot] = id;
    }
    return duplicates;
}

int64_t record(const Step& args, int64_t row, const Row& out, const std::vector<uint8_t>& counted) {
    if (!args.lines || !counted[static_cast<size_t>(row)]) return 0;
    const int64_t id = args.index[row];
    if (fold(args.lines + id * args.layout.words, args.layout, out.seen) && args.loss_sums) {
        args.loss_sums[id] += out.nll;
    }
    return !out.seen.finite;
}

template <class T>
void run_row(const Step& args, int64_t row, float* scratch, float weight_sum, Row& out) {
    const int64_t n = args.classes, y = args.targets[row];
    const T* x = static_cast<const T*>(args.logits) + row * args.logits_stride;
    T* grad = args.grad ? static_cast<T*>(args.grad) + row * args.grad_stride : nullptr;
    const bool ignored = y == args.ignore_index;
    if (ignored) {
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
    RowSums sums;
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
    out = finish(sums, args, y, weight_sum);
    args.loss[row] = out.loss;
    if (!grad) return;
    if (out.b != 0) {
        row_gradient(e, args.weight, n, out.a, out.b);
    } else {
        row_scale(e, n, out.a);
    }
    e[y] = out.true_gradient;
    if constexpr (!std::is_same_v<T, float>) store_row(e, grad, n);
}

// Few classes: a block of 16 rows is transposed, so that the vector lanes are rows and no lane is idle.
struct Block {
    float x[kSmall * kTile];  // (class, row); exponentials after block_sums
    float weight[kTile];
    int32_t y[kTile];
    float max[kTile], true_logit[kTile], best_other[kTile], true_exp[kTile], others[kTile], squares[kTile],
        weighted[kTile], logits[kTile];
    int32_t strange[kTile];
};

CLONES void block_sums(Block& t, int classes, const float* weight, bool smoothing) {
    const float low = -std::numeric_limits<float>::infinity();
    for (int r = 0; r < kTile; ++r) {
        t.best_other[r] = low;
        t.true_logit[r] = 0;
        t.strange[r] = 0;
        t.others[r] = t.squares[r] = t.weighted[r] = t.logits[r] = 0;
    }
    for (int c = 0; c < classes; ++c) {
        const float* x = t.x + c * kTile;
#pragma omp simd
        for (int r = 0; r < kTile; ++r) {
            const bool own = t.y[r] == c;
            const float other = own ? low : x[r];
            t.true_logit[r] = own ? x[r] : t.true_logit[r];
            t.best_other[r] = other > t.best_other[r] ? other : t.best_other[r];
            t.strange[r] |= !(x[r] <= FLT_MAX);
        }
    }
#pragma omp simd
    for (int r = 0; r < kTile; ++r) t.max[r] = t.best_other[r] > t.true_logit[r] ? t.best_other[r] : t.true_logit[r];
    if (smoothing) {
        for (int c = 0; c < classes; ++c) {
            const float w = weight ? weight[c] : 1.0f;
#pragma omp simd
            for (int r = 0; r < kTile; ++r) t.logits[r] += w * (t.x[c * kTile + r] - t.max[r]);
        }
    }
    for (int c = 0; c < classes; ++c) {
        float* x = t.x + c * kTile;
#pragma omp simd
        for (int r = 0; r < kTile; ++r) {
            const float d = x[r] - t.max[r], v = exp_neg(d);
            x[r] = v;
            const float other = t.y[r] == c ? 0.0f : v;
            t.others[r] += other;
            t.squares[r] += other * other;
            t.weighted[r] += v * (d < -87.0f ? -87.0f : d);
        }
    }
#pragma omp simd
    for (int r = 0; r < kTile; ++r) t.true_exp[r] = exp_neg(t.true_logit[r] - t.max[r]);
}

// Transposing: vector code would gather and scatter, which takes longer.
#define SCALAR __attribute__((optimize("no-tree-vectorize")))

template <class T>
SCALAR void block_load(const T* from, int64_t stride, float* to, int rows, int classes) {
    for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < classes; ++c) to[c * kTile + r] = to_float(from[r * stride + c]);
    }
    for (int r = rows; r < kTile; ++r) {
        for (int c = 0; c < classes; ++c) to[c * kTile + r] = 0;
    }
}

CLONES void block_gradient(Block& t, int classes, const float* a, const float* b, const float* weight) {
    for (int c = 0; c < classes; ++c) {
        const float w = weight ? weight[c] : 1.0f;
#pragma omp simd
        for (int r = 0; r < kTile; ++r) t.x[c * kTile + r] = a[r] * t.x[c * kTile + r] - b[r] * w;
    }
}

template <class T>
SCALAR void block_store(const float* from, T* to, int64_t stride, int rows, int classes) {
    for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < classes; ++c) from_float(from[c * kTile + r], to + r * stride + c);
    }
}

template <class T>
int64_t run_block(const Step& args, int64_t first, int rows, float weight_sum, const std::vector<uint8_t>& counted) {
    const int classes = static_cast<int>(args.classes);
    const T* x = static_cast<const T*>(args.logits) + first * args.logits_stride;
    Block t;
    for (int r = 0; r < kTile; ++r) {
        const int64_t y = r < rows ? args.targets[first + r] : 0;
        t.y[r] = y == args.ignore_index ? 0 : static_cast<int32_t>(y);
        if (args.lines && r < rows && counted[static_cast<size_t>(first + r)]) {
            __builtin_prefetch(args.lines + args.index[first + r] * args.layout.words, 1);
        }
    }
    block_load(x, args.logits_stride, t.x, rows, classes);
    block_sums(t, classes, args.weight, args.smoothing > 0);
    Row out[kTile];
    float a[kTile] = {}, b[kTile] = {};
    for (int r = 0; r < rows; ++r) {
        RowSums sums;
        sums.max = t.max[r];
        sums.true_logit = t.true_logit[r];
        sums.best_other = t.best_other[r];
        sums.true_exp = t.true_exp[r];
        sums.others = t.others[r];
        sums.others_squared = t.squares[r];
        sums.weighted = t.weighted[r];
        sums.logits = t.logits[r];
        sums.lost = t.strange[r] || !(sums.max >= -FLT_MAX);
        sums.finite = !sums.lost && sums.true_logit >= -FLT_MAX;
        out[r] = finish(sums, args, t.y[r], weight_sum);
        const bool ignored = args.targets[first + r] == args.ignore_index;
        if (ignored) out[r].loss = out[r].a = out[r].b = out[r].true_gradient = 0;
        args.loss[first + r] = out[r].loss;
        a[r] = out[r].a;
        b[r] = out[r].b;
    }
    if (args.grad) {
        T* grad = static_cast<T*>(args.grad) + first * args.grad_stride;
        block_gradient(t, classes, a, b, args.weight);
        block_store(t.x, grad, args.grad_stride, rows, classes);
        for (int r = 0; r < rows; ++r) from_float(out[r].true_gradient, grad + r * args.grad_stride + t.y[r]);
    }
    int64_t strange = 0;
    for (int r = 0; r < rows; ++r) strange += record(args, first + r, out[r], counted);
    return strange;
}

template <class T>
int64_t run(const Step& args, float weight_sum, const std::vector<uint8_t>& counted) {
    int64_t strange = 0;
    const bool parallel = args.threads > 1 && args.rows * args.classes > kSerial;
    if (args.classes <= kSmall) {
        const int64_t blocks = (args.rows + kTile - 1) / kTile;
#pragma omp parallel for schedule(static) reduction(+ : strange) num_threads(args.threads) if (parallel)
        for (int64_t k = 0; k < blocks; ++k) {
            const int rows = static_cast<int>(std::min<int64_t>(kTile, args.rows - k * kTile));
            strange += run_block<T>(args, k * kTile, rows, weight_sum, counted);
        }
        return strange;
    }
#pragma omp parallel reduction(+ : strange) num_threads(args.threads) if (parallel)
    {
        std::vector<float> scratch(static_cast<size_t>(args.classes));
#pragma omp for schedule(static)
        for (int64_t row = 0; row < args.rows; ++row) {
            if (args.lines && row + kAhead < args.rows) {
                __builtin_prefetch(args.lines + args.index[row + kAhead] * args.layout.words, 1);
            }
            Row out{};
            run_row<T>(args, row, scratch.data(), weight_sum, out);
            if (args.targets[row] != args.ignore_index) strange += record(args, row, out, counted);
        }
    }
    return strange;
}

}  // namespace

int64_t first_bad_target(const int64_t* targets, int64_t rows, int64_t classes, int64_t ignore_index) {
    for (int64_t r = 0; r < rows; ++r) {
        if (targets[r] != ignore_index && (targets[r] < 0 || targets[r] >= classes)) return r;
    }
    return -1;
}

int64_t first_bad_index(const int64_t* index, int64_t rows, int64_t samples) {
    for (int64_t r = 0; r < rows; ++r) {
        if (index[r] < 0 || index[r] >= samples) return r;
    }
    return -1;
}

Counts step(const Step& asked) {
    Counts counts;
    Step args = asked;
    for (int64_t r = 0; r < args.rows; ++r) {
        const int64_t y = args.targets[r];
        if (y != args.ignore_index) counts.denominator += args.weight ? static_cast<double>(args.weight[y]) : 1.0;
    }
    if (args.mean) args.scale = static_cast<float>(static_cast<double>(args.scale) / counts.denominator);
    std::vector<uint8_t> counted;
    if (args.lines)
        counts.duplicates = counted_rows(args.index, args.targets, args.ignore_index, nullptr, args.rows, counted);
    float weight_sum = static_cast<float>(args.classes);
    if (args.weight) {
        double sum = 0;
        for (int64_t c = 0; c < args.classes; ++c) sum += static_cast<double>(args.weight[c]);
        weight_sum = static_cast<float>(sum);
    }
    counts.non_finite = args.type == Logits::kFloat32 ? run<float>(args, weight_sum, counted)
                                                      : run<uint16_t>(args, weight_sum, counted);
    return counts;
}

Counts observe(const Observe& args) {
    Counts counts;
    std::vector<uint8_t> counted;
    counts.duplicates = counted_rows(args.index, nullptr, 0, args.counted, args.rows, counted);
    int64_t strange = 0;
#pragma omp parallel for schedule(static) reduction(+ : strange) num_threads(args.threads) if (args.rows > kSerial / 16)
    for (int64_t r = 0; r < args.rows; ++r) {
        const auto at = static_cast<size_t>(r);
        if (!counted[at]) continue;
        const bool finite = std::isfinite(args.p[r]);
        fold(args.lines + args.index[r] * args.layout.words, args.layout,
             {args.p[r], args.margin[r], args.el2n[r], args.entropy[r], args.correct[r] != 0, finite});
        strange += !finite;
    }
    counts.non_finite = strange;
    return counts;
}

}  // namespace dualfast
