// Included by step_rows.h: few classes, several rows at a time, a vector lane for each.

// Blocks are transposed in tiles of four rows by four classes, which is faster than gather and scatter.
INLINE void transpose(Float4 (&v)[4]) {
    const Float4 a = SHUFFLE(v[0], v[1], 0, 4, 1, 5), b = SHUFFLE(v[0], v[1], 2, 6, 3, 7);
    const Float4 c = SHUFFLE(v[2], v[3], 0, 4, 1, 5), d = SHUFFLE(v[2], v[3], 2, 6, 3, 7);
    v[0] = SHUFFLE(a, c, 0, 1, 4, 5);
    v[1] = SHUFFLE(a, c, 2, 3, 6, 7);
    v[2] = SHUFFLE(b, d, 0, 1, 4, 5);
    v[3] = SHUFFLE(b, d, 2, 3, 6, 7);
}

// Calls tile(first row, first class) for all tiles of a block; the last of a row overlaps the one before it.
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
        Float4 tile[4];
        for (int k = 0; k < 4; ++k) tile[k] = load4(row(r + k) + c);
        transpose(tile);
        for (int k = 0; k < 4; ++k) store4(tile[k], to + (c + k) * N + r);
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
        Float4 tile[4];
        for (int k = 0; k < 4; ++k) tile[k] = load4(from + (c + k) * N + r);
        transpose(tile);
        for (int k = 0; k < 4; ++k) store4(tile[k], row(r + k) + c);
    });
}

template <class F>
INLINE F vector_at(const void* from) {
    F out;
    std::memcpy(&out, from, sizeof out);
    return out;
}

// A block of N rows, as many as a vector has lanes. Past the end of the batch the last row is repeated, and its
// gradient is written again, the same.
template <class T>
INLINE void run_block(const Work& work, int64_t first, int rows, int64_t& non_finite) {
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
    alignas(64) Floats x[kFewClasses];  // of a class: logits, then exponentials, then gradient
    float* scalars = reinterpret_cast<float*>(x);
    block_load(static_cast<const T*>(args.logits) + first * args.logits_stride, args.logits_stride, scalars, rows,
               classes);

    const Floats low = Floats{} - std::numeric_limits<float>::infinity();
    Sums<Floats> sums{};
    sums.max_other = low;
    Ints non_finite_logits{};
    const bool voted = args.votes || args.top_others;
    Ints top_other = classes > 1 ? (y == 0) & 1 : Ints{};  // the lowest wrong class, where all of them are -inf
    for (int c = 0; c < classes; ++c) {
        const Ints is_true = y == c;
        const Floats other = is_true ? low : x[c];
        sums.true_logit = is_true ? x[c] : sums.true_logit;
        if (voted) top_other = other > sums.max_other ? Ints{} + c : top_other;
        sums.max_other = other > sums.max_other ? other : sums.max_other;
        non_finite_logits |= ~(x[c] <= FLT_MAX);
    }
    sums.max = sums.max_other > sums.true_logit ? sums.max_other : sums.true_logit;
    sums.nan_loss = non_finite_logits | ~(sums.max >= -FLT_MAX);
    sums.finite = ~sums.nan_loss & (sums.true_logit >= -FLT_MAX);
    // Sums of sums of a few classes: one long sum loses digits with each class.
    for (int begin = 0; begin < classes; begin += kGroup) {
        const int end = std::min(begin + kGroup, classes);
        Floats others{}, others_squared{}, entropy_sum{}, smoothing_sum{};
        if (args.smoothing > 0) {
            for (int c = begin; c < end; ++c)
                smoothing_sum += (args.weight ? args.weight[c] : 1.0f) * (x[c] - sums.max);
        }
        for (int c = begin; c < end; ++c) {
            const Floats d = x[c] - sums.max, e = exp_neg(d), other = y == c ? Floats{} : e;
            x[c] = e;
            others += other;
            others_squared += other * other;
            entropy_sum += e * (d < -87.0f ? -87.0f : d);
        }
        sums.others += others;
        sums.others_squared += others_squared;
        sums.entropy_sum += entropy_sum;
        sums.smoothing_sum += smoothing_sum;
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
        prefetch_line(work, first + r + kAhead);  // one at a time: a processor keeps few cache misses in flight
        Row<float> one;
        one.nll = out.nll[r];
        one.p = out.p[r];
        one.margin = out.margin[r];
        one.el2n = out.el2n[r];
        one.entropy = out.entropy[r];
        one.prob_margin = out.prob_margin[r];
        one.correct = out.correct[r] != 0;
        one.finite = out.finite[r] != 0;
        one.top_other = top_other[r];
        record(work, first + r, one, non_finite);
    }
}
