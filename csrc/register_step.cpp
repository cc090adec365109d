#include <algorithm>
#include <string>
#include <vector>

#include "arguments.h"
#include "step.h"

namespace {

dualfast::Line layout_of(const py::object& lines, int window, int limit) {
    if (lines.is_none()) return {dualfast::kLineWords, window, limit};
    return {static_cast<int>(py::reinterpret_borrow<py::array>(lines).shape(1)), window, limit};
}

void count(int32_t* status, const dualfast::Counts& counts) {
    if (!status) return;
    status[dualfast::kStatusDuplicates] += static_cast<int32_t>(counts.duplicates);
    status[dualfast::kStatusNonFinite] += static_cast<int32_t>(counts.non_finite);
}

void check_range(int64_t row, const char* name, const int64_t* values, const std::string& range) {
    if (row < 0) return;
    throw py::value_error(std::string(name) + "[" + std::to_string(row) + "] is " + std::to_string(values[row]) +
                          range);
}

// Addresses and sizes, all of them checked by dualfast.ops: to make arrays of eight tensors would cost as much as the
// step of a small batch. 0 is null. reduced: 1 float, the sum of the losses (mean: over the denominator), or null.
void step(uintptr_t logits, uintptr_t grad, bool bfloat16, int64_t rows, int64_t classes, int64_t logits_stride,
          int64_t grad_stride, uintptr_t targets, uintptr_t index, uintptr_t loss, uintptr_t reduced, float scale,
          bool mean, uintptr_t weight, float smoothing, int64_t ignore_index, uintptr_t lines, uintptr_t status,
          uintptr_t loss_sums, uintptr_t prob_margin_sums, uintptr_t late_margin_sums, uintptr_t votes, int64_t samples,
          int words, int window, int limit, uintptr_t seen, uintptr_t flags, uintptr_t top_others, bool by_products,
          int threads) {
    dualfast::Step args{};
    args.type = bfloat16 ? dualfast::Logits::kBFloat16 : dualfast::Logits::kFloat32;
    args.logits = reinterpret_cast<const void*>(logits);
    args.grad = reinterpret_cast<void*>(grad);
    args.logits_stride = logits_stride;
    args.grad_stride = grad_stride;
    args.targets = reinterpret_cast<const int64_t*>(targets);
    args.index = reinterpret_cast<const int64_t*>(index);
    args.loss = reinterpret_cast<float*>(loss);
    args.scale = scale;
    args.mean = mean;
    args.rows = rows;
    args.classes = classes;
    args.samples = samples;
    args.ignore_index = ignore_index;
    args.weight = reinterpret_cast<const float*>(weight);
    args.smoothing = smoothing;
    args.lines = reinterpret_cast<int32_t*>(lines);
    args.layout = {words, window, limit};
    args.loss_sums = reinterpret_cast<float*>(loss_sums);
    args.prob_margin_sums = reinterpret_cast<float*>(prob_margin_sums);
    args.late_margin_sums = reinterpret_cast<float*>(late_margin_sums);
    args.votes = reinterpret_cast<int32_t*>(votes);
    args.seen = reinterpret_cast<float*>(seen);
    args.flags = reinterpret_cast<uint8_t*>(flags);
    args.top_others = reinterpret_cast<int32_t*>(top_others);
    args.by_products = by_products;
    args.threads = threads;
    auto* state = reinterpret_cast<int32_t*>(status);
    py::gil_scoped_release release;
    const auto counts_in = [&](int64_t row) { return args.targets[row] != ignore_index; };
    const int64_t bad_target = dualfast::first_outside(args.targets, rows, classes, ignore_index, counts_in);
    const int64_t bad_index = args.lines ? dualfast::first_outside(args.index, rows, samples, 0, counts_in) : -1;
    if (bad_target >= 0 || bad_index >= 0) {
        py::gil_scoped_acquire acquire;
        check_range(bad_target, "targets", args.targets,
                    "; the logits have the classes 0 to " + std::to_string(classes - 1));
        check_range(bad_index, "index", args.index,
                    "; the score table has the samples 0 to " + std::to_string(samples - 1));
    }
    if (state && state[dualfast::kStatusPaused]) {
        if (args.flags) std::fill(args.flags, args.flags + rows, uint8_t{0});
        args.lines = nullptr;
        args.votes = nullptr;
        args.flags = nullptr;
        args.top_others = nullptr;
    }
    std::vector<float> losses;
    if (!loss) {
        losses.resize(static_cast<size_t>(rows));
        args.loss = losses.data();
    }
    const dualfast::Counts counts = dualfast::step(args);
    count(state, counts);
    if (!reduced) return;
    const double total = dualfast::sum(args.loss, rows);
    *reinterpret_cast<float*>(reduced) = static_cast<float>(mean ? total / counts.denominator : total);
}

void observe(const Dense<float>& p, const Dense<float>& margin, const Dense<float>& el2n, const Dense<float>& entropy,
             const Dense<bool>& correct, const py::object& counted, const Dense<int64_t>& index,
             const py::object& lines, const py::object& status, int64_t samples, int window, int limit, int threads) {
    const py::ssize_t rows = p.size();
    for (const auto& [name, size] :
         {std::pair{"margin", margin.size()}, std::pair{"el2n", el2n.size()}, std::pair{"entropy", entropy.size()},
          std::pair{"correct", correct.size()}, std::pair{"index", index.size()}}) {
        check_size(name, size, rows);
    }
    dualfast::Observe args{};
    args.p = p.data();
    args.margin = margin.data();
    args.el2n = el2n.data();
    args.entropy = entropy.data();
    args.correct = reinterpret_cast<const uint8_t*>(correct.data());
    args.counted = reinterpret_cast<const uint8_t*>(optional_data<bool>(counted, "counted", rows));
    args.index = index.data();
    args.rows = rows;
    args.samples = samples;
    args.layout = layout_of(lines, window, limit);
    args.lines = optional_data<int32_t>(lines, "lines", samples * args.layout.words);
    args.threads = threads;
    auto* state = optional_data<int32_t>(status, "status", dualfast::kStatusWords);
    const auto counts_in = [&](int64_t row) { return !args.counted || args.counted[row]; };
    check_range(dualfast::first_outside(args.index, rows, samples, 0, counts_in), "index", args.index,
                "; the score table has the samples 0 to " + std::to_string(samples - 1));
    if (state && state[dualfast::kStatusPaused]) return;
    dualfast::Counts counts;
    {
        py::gil_scoped_release release;
        counts = dualfast::observe(args);
    }
    count(state, counts);
}

}  // namespace

void register_step(py::module_& m) {
    m.def("step", &step);
    m.def("observe", &observe, py::arg("p").noconvert(), py::arg("margin").noconvert(), py::arg("el2n").noconvert(),
          py::arg("entropy").noconvert(), py::arg("correct").noconvert(), py::arg("counted"),
          py::arg("index").noconvert(), py::arg("lines"), py::arg("status"), py::arg("samples"), py::arg("window"),
          py::arg("limit"), py::arg("threads"));
}
