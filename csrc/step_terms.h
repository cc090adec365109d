// Included by step_rows.h: from the sums over a row to its loss, its gradient and its visit.

// Sums over the logits z_j of a row, with e_j = exp(z_j - max).
template <class F>
struct Sums {
    F max, true_logit, max_other, true_exp;
    F others;          // sum of e_j over the wrong classes
    F others_squared;  // sum of e_j^2 over the wrong classes
    F entropy_sum;     // sum of e_j (z_j - max) over all classes
    F smoothing_sum;   // sum of w_j (z_j - max) over all classes
    Mask<F> finite;    // the true logit is finite, and no other is NaN or +inf
    Mask<F> nan_loss;  // some logit is NaN or +inf, or all are -inf
};

// What follows from the sums. The gradient is a e_j - b w_j, but true_gradient for the true class.
template <class F>
struct Row {
    F loss, nll, a, b, true_gradient, p, margin, el2n, entropy, prob_margin;
    Mask<F> correct, finite;
    Int<F> top_other;  // the wrong class with the largest logit, the lowest of several; set where it is recorded
};

template <class F>
INLINE Row<F> finish(const Sums<F>& sums, const Terms& terms, const F& true_weight) {
    const F inverse = 1.0f / (sums.others + sums.true_exp);
    const F p = sums.true_exp * inverse, q = sums.others * inverse;  // q = 1 - p without cancellation
    Row<F> out;
    out.p = p;
    out.finite = sums.finite;
    out.correct = sums.true_logit > sums.max_other;
    // The largest of the exponentials is 1. Where it is the true class's, the others keep all their digits.
    const F all_but_max = out.correct ? sums.others : sums.others + sums.true_exp - 1.0f;
    const F log_total = log1p_pos(all_but_max);
    const F hard = terms.hard * true_weight, zero{};
    const float soft = terms.soft, nan = std::numeric_limits<float>::quiet_NaN();
    out.nll = (sums.max - sums.true_logit) + log_total;
    const F loss = hard * out.nll + soft * (terms.weight_sum * log_total - sums.smoothing_sum);
    const F a = terms.scale * inverse * (hard + soft * terms.weight_sum);
    const F true_gradient = terms.scale * (soft * (terms.weight_sum * p - true_weight) - hard * q);
    // A true class at -inf alone has an infinite loss and an ordinary gradient, as in torch.
    out.loss = sums.finite ? loss : zero + std::numeric_limits<float>::infinity();
    out.loss = sums.nan_loss ? zero + nan : out.loss;
    out.a = sums.nan_loss ? zero + nan : a;
    out.b = sums.nan_loss ? zero + nan : zero + terms.scale * soft;
    out.true_gradient = sums.nan_loss ? zero + nan : true_gradient;
    out.margin = out.el2n = out.entropy = out.prob_margin = zero + nan;
    if (terms.by_products) {
        out.margin = sums.true_logit - sums.max_other;
        if (terms.prob_margin) out.prob_margin = (sums.true_exp - exp_neg<F>(sums.max_other - sums.max)) * inverse;
        out.el2n = root<F>(sums.others_squared * inverse * inverse + q * q);
        const F entropy = log_total - sums.entropy_sum * inverse;
        out.entropy = entropy > 0.0f ? entropy : zero;
    }
    return out;
}

INLINE void prefetch_line(const Work& work, int64_t row) {
    const Step& args = work.args;
    if (!args.lines || row >= args.rows) return;
    // In integers: the index of a row that does not count may be anything.
    const auto ahead = [id = static_cast<uint64_t>(args.index[row])](const void* base, uint64_t bytes) {
        if (base) __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(base) + id * bytes), 1);
    };
    ahead(args.lines, static_cast<uint64_t>(args.layout.words) * 4);
    if (!work.beside) return;
    ahead(args.loss_sums, sizeof(float));
    ahead(args.prob_margin_sums, sizeof(float));
    ahead(args.late_margin_sums, sizeof(float));
    ahead(args.votes, sizeof(int32_t));
}

INLINE void emit(const Step& args, int64_t row, const Observation& seen, bool folded) {
    float* value = args.seen + row;
    value[kSeenP * args.rows] = seen.finite ? seen.p : std::numeric_limits<float>::quiet_NaN();
    value[kSeenMargin * args.rows] = seen.margin;
    value[kSeenEl2n * args.rows] = seen.el2n;
    value[kSeenEntropy * args.rows] = seen.entropy;
    args.flags[row] = kFlagCounted | (seen.correct ? kFlagCorrect : 0) | (folded ? kFlagFolded : 0);
}

// Not inlined, and without fused multiply-add: a line has the same bytes whichever function folds into it.
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
__attribute__((noinline)) void record(const Work& work, int64_t row, const Row<float>& out, int64_t& non_finite) {
    const Step& args = work.args;
    if (work.lines_only) {
        if (!work.counted[static_cast<size_t>(row)]) return;
        fold(args.lines + args.index[row] * args.layout.words, args.layout,
             {out.p, out.margin, out.el2n, out.entropy, out.correct, out.finite});
        non_finite += !out.finite;
        return;
    }
    if (!args.lines && !args.flags) return;
    const bool counted = args.lines ? work.counted[static_cast<size_t>(row)] : args.targets[row] != args.ignore_index;
    if (args.flags) args.flags[row] = 0;
    if (!counted) return;
    const Observation seen{out.p, out.margin, out.el2n, out.entropy, out.correct, out.finite};
    bool folded = false;
    if (args.lines) {
        const int64_t id = args.index[row];
        int32_t* line = args.lines + id * args.layout.words;
        folded = fold(line, args.layout, seen);
        if (folded && work.beside) {
            if (args.loss_sums) args.loss_sums[id] += out.nll;
            if (args.prob_margin_sums) args.prob_margin_sums[id] += out.prob_margin;
            if (args.late_margin_sums) {
                const auto k = static_cast<float>(visits(line, args.layout));
                args.late_margin_sums[id] += k * k * out.margin;
            }
            if (args.votes) args.votes[id] = vote(args.votes[id], out.top_other);
        }
    }
    if (args.top_others) args.top_others[row] = out.top_other;
    if (args.flags) emit(args, row, seen, folded);
    non_finite += !seen.finite;
}
#pragma GCC pop_options
