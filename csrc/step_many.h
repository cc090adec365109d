// Included by step_rows.h: many classes, one row at a time, vector lanes along the classes.

INLINE void load_row(const uint16_t* from, float* to, int64_t n) {
    for (int64_t c = 0; c < n; ++c) to[c] = to_float(from[c]);
}

INLINE void store_row(const float* from, uint16_t* to, int64_t n) {
    for (int64_t c = 0; c < n; ++c) from_float(from[c], to + c);
}

INLINE void row_maximum(const float* x, int64_t n, int64_t y, Sums<float>& row) {
    float best = -std::numeric_limits<float>::infinity();
    int non_finite = 0;
#pragma omp simd reduction(max : best) reduction(| : non_finite)
    for (int64_t c = 0; c < y; ++c) {
        best = x[c] > best ? x[c] : best;
        non_finite |= !(x[c] <= FLT_MAX);
    }
#pragma omp simd reduction(max : best) reduction(| : non_finite)
    for (int64_t c = y + 1; c < n; ++c) {
        best = x[c] > best ? x[c] : best;
        non_finite |= !(x[c] <= FLT_MAX);
    }
    row.true_logit = x[y];
    row.max_other = best;
    row.max = best > x[y] ? best : x[y];
    row.nan_loss = non_finite || !(x[y] <= FLT_MAX) || !(row.max >= -FLT_MAX);
    row.finite = !row.nan_loss && x[y] >= -FLT_MAX;
}

// The first class but y whose logit is max_other, or 0.
INLINE int32_t row_top_other(const float* x, int64_t n, int64_t y, float max_other) {
    constexpr int64_t kBlock = 4 * N;
    for (int64_t begin = 0; begin < n; begin += kBlock) {
        const int64_t end = std::min(begin + kBlock, n);
        float best = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : best)
        for (int64_t c = begin; c < end; ++c) best = x[c] > best ? x[c] : best;
        for (int64_t c = begin; best >= max_other && c < end; ++c) {
            if (x[c] == max_other && c != y) return static_cast<int32_t>(c);
        }
    }
    return 0;
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
                                 float* entropy_sum) {
    float total = 0, square = 0, product = 0;
#pragma omp simd reduction(+ : total, square, product)
    for (int64_t c = 0; c < n; ++c) {
        const float d = x[c] - max, v = exp_neg(d);
        e[c] = v;
        total += v;
        square += v * v;
        product += v * (d < -87.0f ? -87.0f : d);
    }
    *sum = total;
    *squares = square;
    *entropy_sum = product;
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
INLINE float row_smoothing_sum(const float* x, const float* weight, int64_t n, float max) {
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

// g_j = a e_j - b w_j: the gradient of all classes but the true one.
INLINE void row_gradient(float* e, const float* weight, int64_t n, float a, float b) {
    if (weight) {
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) e[c] = a * e[c] - b * weight[c];
    } else {
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) e[c] = a * e[c] - b;
    }
}

template <class T>
INLINE void run_row(const Work& work, int64_t row, float* scratch, int64_t& non_finite) {
    const Step& args = work.args;
    const int64_t n = args.classes, y = args.targets[row];
    const T* x = static_cast<const T*>(args.logits) + row * args.logits_stride;
    T* grad = args.grad ? static_cast<T*>(args.grad) + row * args.grad_stride : nullptr;
    if (y == args.ignore_index) {
        args.loss[row] = 0;
        if (args.flags) args.flags[row] = 0;
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
    // Before the exponentials, which may take the logits' place.
    const int32_t top_other = args.votes || args.top_others ? row_top_other(z, n, y, sums.max_other) : 0;
    if (args.smoothing > 0) sums.smoothing_sum = row_smoothing_sum(z, args.weight, n, sums.max);
    float total, squares = 0;
    if (args.by_products) {
        row_exponentials_all(z, e, n, sums.max, &total, &squares, &sums.entropy_sum);
    } else {
        row_exponentials(z, e, n, sums.max, &total);
    }
    sums.true_exp = e[y];
    sums.others = total - sums.true_exp;
    sums.others_squared = std::max(squares - sums.true_exp * sums.true_exp, 0.0f);
    if (sums.true_exp > 0.5f * total) {
        // A confident row: the wrong classes are summed again, so that 1 - p keeps its digits.
        e[y] = 0;
        sums.others = row_sum(e, n);
        if (args.by_products) {
            float again = 0;
            for (int64_t c = 0; c < n; ++c) again += e[c] * e[c];
            sums.others_squared = again;
        }
        e[y] = sums.true_exp;
    }
    Row<float> out = finish<float>(sums, work.terms, args.weight ? args.weight[y] : 1.0f);
    out.top_other = top_other;
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
    record(work, row, out, non_finite);
}
