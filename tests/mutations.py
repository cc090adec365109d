"""Breaks the code on purpose, one line at a time, and sees that a test goes red: python tests/mutations.py [WORD]

With WORD only the mutations whose file or test holds it. A mutation whose test stays green, or whose old text does not
stand in its file exactly once, fails the run. With CC="ccache gcc" CXX="ccache g++" the builds take a
third of the time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
KERNELS = "tests/ops/interpreted_kernels.py::"
TRAINING = "tests/scoring/test_recording.py::"
STEP = "tests/ops/test_step.py::"


class Mutation(NamedTuple):
    """In `file` the text `old` becomes `new`; `test` must fail."""

    file: str
    old: str
    new: str
    test: str


MUTATIONS = [
    Mutation("kernels/step.py", "- hard * q)", "- hard * (1 - p))", KERNELS + "test_confident_rows_keep_their_digits"),
    Mutation(
        "kernels/step.py",
        "kept = in_batch & (target != ignore_index)",
        "kept = in_batch",
        KERNELS + "test_an_ignored_row_is_zero_whatever_its_logits",
    ),
    Mutation(
        "kernels/step.py",
        "total += kept.to(tl.float32)",
        "total += (row < count).to(tl.float32)",
        KERNELS + "test_step_against_float64[float32-10-by-16-ignore]",
    ),
    Mutation(
        "kernels/step.py",
        "soft * (weights * log_sum - smoothing_sum)",
        "soft * (CLASSES * log_sum - smoothing_sum)",
        KERNELS + "test_step_against_float64[float32-10-by-16-both]",
    ),
    Mutation(
        "kernels/step.py",
        "lane_sum = lane_sum * shrink + e",
        "lane_sum = lane_sum + e",
        KERNELS + "test_step_against_float64[float32-100-by-64-mean]",
    ),
    Mutation(
        "kernels/step.py",
        "z - anchor[:, None]",
        "z",
        KERNELS + "test_step_against_float64[float32-100-by-64-smoothing]",
    ),
    Mutation(
        "kernels/step.py",
        "tl.where(inside, scale, float",
        "tl.where(kept, scale, float",
        KERNELS + "test_bad_rows_are_counted_and_not_recorded",
    ),
    Mutation(
        "kernels/step.py",
        "log_sum - entropy_sum * inverse",
        "log_sum + entropy_sum * inverse",
        KERNELS + "test_step_lines_equal_those_of_cpp",
    ),
    Mutation(
        "kernels/step.py",
        "squares * inverse * inverse + q * q",
        "squares * inverse * inverse",
        KERNELS + "test_step_lines_equal_those_of_cpp",
    ),
    Mutation(
        "kernels/step.py",
        "upstream.stride(0) if upstream.ndim else 0",
        "0",
        KERNELS + "test_scale_grad",
    ),
    Mutation(
        "kernels/line.py",
        "(visits % RING)[:, None]",
        "((visits + 1) % RING)[:, None]",
        KERNELS + "test_step_lines_equal_those_of_cpp",
    ),
    Mutation(
        "kernels/line.py",
        "other[None, :] < row[:, None]",  # the first row of an index is recorded; this records the last
        "other[None, :] > row[:, None]",
        KERNELS + "test_step_lines_equal_those_of_cpp",
    ),
    Mutation(
        "kernels/line.py",
        "& (visits < limit)",
        "& (visits <= limit)",
        KERNELS + "test_step_lines_equal_those_of_cpp",
    ),
    Mutation(
        "kernels/line.py",
        "tl.minimum(skipped + 1, SKIPPED_MAX)",
        "(skipped + 1)",
        KERNELS + "test_skipped_visits_saturate",
    ),
    Mutation(
        "kernels/line.py",
        "counted = counted & inside & (tl",
        "counted = counted & (tl",
        KERNELS + "test_observe_equals_that_of_cpp",
    ),
    Mutation(
        "kernels/step.py",
        "counted = kept & known & (tl.load(status_ptr + PAUSED + index * 0) == 0)",
        "counted = kept & known",
        KERNELS + "test_a_paused_table_is_left_as_it_is",
    ),
    Mutation(
        "kernels/line.py",
        "counted & inside & (tl.load(status_ptr + PAUSED + index * 0) == 0)",
        "counted & inside",
        KERNELS + "test_a_paused_table_is_left_as_it_is",
    ),
    Mutation(
        "kernels/step.py",
        "        tl.store(finished_ptr, 0)",
        "        pass",
        KERNELS + "test_the_last_program_reduces",
    ),
    Mutation(
        "kernels/step.py",
        "tl.num_programs(0) - 1",
        "tl.num_programs(0)",
        KERNELS + "test_the_last_program_reduces",
    ),
    Mutation(
        "kernels/step.py",
        "tl.store(reduced_ptr, total / denominator",
        "tl.store(reduced_ptr, total",
        KERNELS + "test_the_last_program_reduces",
    ),
    Mutation(
        "csrc/bindings.cpp",
        "        args.lines = nullptr;\n",
        "",
        TRAINING + "test_a_paused_table_records_nothing",
    ),
    Mutation(
        "csrc/bindings.cpp",
        "mean ? total / counts.denominator : total",
        "total / static_cast<double>(rows)",
        STEP + "test_options",
    ),
    Mutation(
        "csrc/step_math.h",
        "6.9314718e-1f",
        "6.93e-1f",
        STEP + "test_losses_of_sure_rows_keep_their_digits",
    ),
    Mutation(
        "csrc/step_math.h",
        " + lost * shrink",
        " - lost * shrink",
        STEP + "test_losses_of_sure_rows_keep_their_digits",
    ),
    Mutation(
        "csrc/step_math.h",
        "* 0.693147181f",
        "* 0.6931f",
        STEP + "test_losses_of_sure_rows_keep_their_digits",
    ),
    Mutation(
        "csrc/step_terms.h",
        "out.correct ? sums.others : ",
        "",
        STEP + "test_losses_of_sure_rows_keep_their_digits",
    ),
    Mutation(
        "csrc/step_math.h",
        " + ((bits >> 16) & 1)",
        "",
        STEP + "test_bfloat16_gradients_are_rounded_to_nearest_and_ties_to_even",
    ),
    Mutation(
        "csrc/step_math.h",
        "x[k] = std::sqrt(x[k]);",
        "x[k] = x[k];",
        STEP + "test_by_products_of_adversarial_rows",
    ),
    Mutation(
        "csrc/step_terms.h",
        "out.entropy = entropy > 0.0f ? entropy : zero;",
        "out.entropy = zero - entropy;",
        STEP + "test_by_products_of_adversarial_rows",
    ),
    Mutation(
        "csrc/step_few.h",
        "v[1] = __builtin_shuffle(a, c, Int4{2, 3, 6, 7});",
        "v[1] = __builtin_shuffle(a, c, Int4{6, 7, 2, 3});",
        STEP + "test_every_level_of_instructions",
    ),
    Mutation(
        "csrc/step_few.h",
        "tile(r, std::min(c, classes - 4));",
        "if (c + 4 <= classes) tile(r, c);",
        STEP + "test_every_level_of_instructions",
    ),
    Mutation(
        "csrc/step_few.h",
        "from + std::min(r, rows - 1)",
        "from + (r < rows ? r : 0)",
        STEP + "test_every_level_of_instructions",
    ),
    Mutation(
        "csrc/step_few.h",
        "smoothing_sum += (args.weight ? args.weight[c] : 1.0f)",
        "smoothing_sum += 1.0f",
        STEP + "test_every_level_of_instructions",
    ),
    Mutation(
        "csrc/step_few.h",
        "kept ? (y == c ? out.true_gradient : other) : Floats{}",
        "y == c ? out.true_gradient : other",
        STEP + "test_an_ignored_row_is_zero_whatever_its_logits",
    ),
    Mutation(
        "csrc/step_few.h",
        "~sums.nan_loss & (sums.true_logit >= -FLT_MAX)",
        "~sums.nan_loss",
        "tests/scoring/test_loss.py::test_non_finite_logits_show_as_in_torch_and_are_counted",
    ),
    Mutation(
        "csrc/line.h",
        "< ring - j",
        "< ring",
        STEP + "test_lines_agree_with_the_reference",
    ),
    Mutation(
        "csrc/step_few.h",
        "sums.others_squared += others_squared",
        "sums.others_squared = others_squared",
        STEP + "test_by_products_of_adversarial_rows",
    ),
    Mutation(
        "csrc/step.cpp",
        "kGroup = 16;",
        "kGroup = 256;",
        STEP + "test_loss_and_gradient[256-dtype0-cpp]",
    ),
    Mutation(
        "csrc/step.cpp",
        "index[table[slot] - 1] != id",
        "false",
        STEP + "test_repeats_are_counted_exactly",
    ),
    Mutation(
        "csrc/step.cpp",
        "values[r] >= limit)",
        "values[r] > limit)",
        STEP + "test_bad_input_is_named_and_records_nothing",
    ),
    Mutation(
        "csrc/step.cpp",
        "i = whole; i < count",
        "i = count; i < count",
        STEP + "test_options",
    ),
    Mutation(
        "csrc/step.cpp",
        "work.terms.hard = 1 - args.smoothing",
        "work.terms.hard = 1",
        STEP + "test_options",
    ),
    Mutation(
        "csrc/step.cpp",
        "begin += share",
        "begin += 2 * share",
        STEP + "test_any_number_of_threads_gives_the_same_lines",
    ),
    Mutation(
        "dualfast/ops/step.py",
        "torch.empty(rows, dtype=torch.float32, ",
        "torch.empty(rows, ",
        STEP + "test_the_loss_is_float32_whatever_torchs_defaults",
    ),
    Mutation(
        "csrc/jpeg.cpp",
        "margin = info.max_h_samp_factor",
        "margin = 0",
        "tests/ops/test_jpeg.py::test_any_crop_is_cut_from_the_whole_image[size0-4:2:0-baseline]",
    ),
    Mutation(
        "csrc/jpeg.cpp",
        "if (level < 0)",
        "if (level < -1)",
        "tests/ops/test_jpeg.py::test_damaged_files_give_an_image_or_are_left_and_never_crash",
    ),
    Mutation(
        "csrc/jpeg.cpp",
        "begin % shrink",
        "0 * begin",
        "tests/ops/test_jpeg.py::test_smaller_decoding_keeps_the_place",
    ),
    Mutation(
        "csrc/jpeg.cpp",
        "info.max_h_samp_factor == info.max_v_samp_factor ? spare",
        "true ? spare",
        "tests/ops/test_jpeg.py::test_large_crops_are_decoded_smaller[149-4:2:2]",
    ),
    Mutation(
        "dualfast/ops/step.py",
        "        torch.autograd.graph.increment_version(logits)",
        "        pass",
        TRAINING + "test_inplace_is_noticed_by_who_needs_the_logits",
    ),
    Mutation(
        "dualfast/ops/torch_ops.py",
        "Tensor(b!)? lines",  # functionalisation would then drop what was recorded
        "Tensor? lines",
        TRAINING + "test_the_operator_is_declared_as_it_behaves",
    ),
    Mutation(
        "dualfast/scoring/loss.py",
        "        upstream = upstream / ctx.headroom\n        return (grad",
        "        return (grad",
        TRAINING + "test_compiles_as_one_graph",
    ),
    Mutation(
        "dualfast/ops/step_torch.py",
        "new[1:] = ",  # the first row of an index is recorded; this records the last
        "new[:-1] = ",
        TRAINING + "test_a_window_is_of_a_samples_own_visits",
    ),
    Mutation(
        "dualfast/scoring/tdds.py",
        "DECAY = 0.9",
        "DECAY = 0.1",
        "tests/scoring/test_tdds.py::test_tdds_agrees_with_the_reference",
    ),
    Mutation(
        "dualfast/scoring/tdds.py",
        "(status[PAUSED] == 0)",
        "(status[PAUSED] >= 0)",
        "tests/scoring/test_tdds.py::test_a_paused_table_keeps_its_tdds",
    ),
    Mutation(
        "kernels/line.py",
        "    tl.debug_barrier()\n",
        "",
        "tests/ops/test_kernels.py::test_the_line_is_stored_after_a_barrier",
    ),
    Mutation(
        "csrc/philox.h",
        "c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;",
        "c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k0;",
        "tests/ops/test_philox.py",
    ),
    Mutation(
        "csrc/philox.cpp",
        "k1 += 0xBB67AE85;",
        "k1 += 0xBB67AE87;",
        "tests/selection/test_select.py::test_same_for_threads_levels_and_runs",
    ),
    Mutation(
        "csrc/select.cpp",
        "keys[i] = score[i] > 0 ? keys[i] : waits[i] + kZeroWeight;",
        "keys[i] = score[i] > 0 ? keys[i] : waits[i] + keys[i] + kZeroWeight;",
        "tests/selection/test_select.py::test_what_has_no_weight_is_drawn_uniformly",
    ),
    Mutation(
        "csrc/step.cpp",
        "values[row] >= limit) && counts(row)",
        "values[row] >= limit) && (counts(row) || true)",
        STEP + "test_the_index_of_an_ignored_row_may_be_anything",
    ),
    Mutation(
        "csrc/select.cpp",
        "words_of(race, first, n, 1, words1)",
        "words_of(race, first, n, 0, words1)",
        "tests/selection/test_select.py::test_keys_are_those_of_the_reference[0]",
    ),
    Mutation(
        "csrc/select.cpp",
        "0.3999999999940941908",
        "0.3999999990940941908",
        "tests/selection/test_select.py::test_keys_are_those_of_the_reference[0]",
    ),
    Mutation(
        "csrc/select.cpp",
        "wait < weight * sieve.low - kNearOne",
        "wait < weight * sieve.high - kNearOne",
        "tests/selection/test_select.py::test_sifting_decides_only_what_is_certain[12.0-4.0-float32-0]",
    ),
    Mutation(
        "csrc/select.cpp",
        "3e-4 * powers",
        "0.0 * powers",
        "tests/selection/test_select.py::test_sifting_decides_only_what_is_certain[300.0-200.0-float32-0]",
    ),
    Mutation(
        "csrc/select.cpp",
        "constexpr float kNearOne = 0x1p-23f;",
        "constexpr float kNearOne = 0;",
        "tests/selection/test_select.py::test_sifting_is_certain_for_the_rarest_numbers",
    ),
    Mutation(
        "csrc/select.cpp",
        "constexpr uint32_t kFewBits = 1 << 12;",
        "constexpr uint32_t kFewBits = 1;",
        "tests/selection/test_select.py::test_sifting_is_certain_for_the_rarest_numbers",
    ),
    Mutation(
        "csrc/select.cpp",
        "const bool sure = ratios[i] < low;",
        "const bool sure = ratios[i] < std::max(low, high);",
        "tests/selection/test_select.py::test_narrowing_leaves_what_is_in_doubt",
    ),
    Mutation(
        "csrc/select.cpp",
        "start[part + 1] += start[part];",
        "start[part + 1] += start[part] + 1;",
        "tests/selection/test_select.py::test_same_for_threads_levels_and_runs",
    ),
    Mutation(
        "dualfast/selection/draw.py",
        "* error**2 if most",
        "* error if most",
        "tests/selection/test_select.py::test_narrowing_stands_the_worst_errors",
    ),
    Mutation(
        "dualfast/selection/draw.py",
        "/ error**2 if least",
        "/ error if least",
        "tests/selection/test_select.py::test_narrowing_stands_the_worst_errors",
    ),
    Mutation(
        "dualfast/selection/select.py",
        "* n_samples + Fraction(1, 2))",
        "* n_samples)",
        "tests/selection/test_select.py::test_counts_are_exact",
    ),
    Mutation(
        "dualfast/selection/streaming.py",
        "rows[: beta.TOP_SAMPLES]])",
        "rows[-beta.TOP_SAMPLES :]])",
        "tests/selection/test_streaming.py::test_files_give_what_memory_gives",
    ),
    Mutation(
        "dualfast/selection/draw.py",
        "kept[np.flatnonzero(keys == last)[-over:]] = False",
        "kept[np.flatnonzero(keys == last)[:over]] = False",
        "tests/selection/test_select.py::test_smallest_and_largest_break_ties_by_position",
    ),
    Mutation(
        "dualfast/ops/layout.py",
        "FORGOTTEN = BitField(12, 0xFFF)",
        "FORGOTTEN = BitField(11, 0xFFF)",
        "tests/ops/test_layout.py::test_the_header_is_made_from_the_declaration",
    ),
    Mutation(
        "csrc/line_layout.h",
        "kMarginSum = 3",
        "kMarginSum = 4",
        "tests/ops/test_layout.py::test_the_header_is_made_from_the_declaration",
    ),
    Mutation(
        "csrc/step_terms.h",
        "value[args.rows] = seen.margin",
        "value[args.rows] = seen.el2n",
        STEP + "test_observations_are_what_the_lines_get",
    ),
    Mutation(
        "csrc/step_terms.h",
        "out.margin = out.el2n = out.entropy = zero + nan;",
        "out.margin = out.el2n = out.entropy = zero;",
        TRAINING + "test_without_by_products_their_scores_are_none",
    ),
    Mutation(
        "csrc/step_many.h",
        "if (args.flags) args.flags[row] = 0;",
        "",
        STEP + "test_observations_are_what_the_lines_get",
    ),
    Mutation(
        "csrc/bindings.cpp",
        "if (args.flags) std::fill(args.flags, args.flags + rows, uint8_t{0});",
        "",
        STEP + "test_observations_are_what_the_lines_get",
    ),
    Mutation(
        "kernels/step.py",
        'tl.where(finite, p, float("nan"))',
        "p",
        KERNELS + "test_observations_equal_those_of_cpp",
    ),
    Mutation(
        "kernels/step.py",
        "    counted = kept & inside\n",
        "    counted = kept\n",
        KERNELS + "test_observations_equal_those_of_cpp",
    ),
    Mutation(
        "dualfast/ops/step_torch.py",
        "kept, folded = observe(",
        "_, folded = observe(",
        STEP + "test_observations_are_what_the_lines_get",
    ),
    Mutation(
        "dualfast/ops/step_torch.py",
        "    if by_products:\n",
        "    if True:\n",
        TRAINING + "test_without_by_products_their_scores_are_none",
    ),
    Mutation(
        "dualfast/scoring/sharded.py",
        "CORRECT != 0, -values[0], values[0])",
        "CORRECT != 0, values[0], -values[0])",
        "tests/scoring/test_sharded.py::test_scores_and_selection_are_those_of_one_process[2]",
    ),
    Mutation(
        "dualfast/scoring/table.py",
        "observations.flags & layout.FOLDED",
        "observations.flags & layout.COUNTED",
        "tests/scoring/test_trajectories.py::test_every_visit_is_kept_and_nothing_else",
    ),
    Mutation(
        "dualfast/scoring/table.py",
        'if not state["by_products"] and has',
        "if False and has",
        TRAINING + "test_a_state_of_version_01_without_by_products_stays_so",
    ),
    Mutation(
        "dualfast/scoring/trajectories.py",
        "        self._data[len(saved) :] = np.nan\n",
        "",
        "tests/scoring/test_trajectories.py::test_a_training_resumes_with_its_trajectories",
    ),
    Mutation(
        "dualfast/scoring/trajectories.py",
        "np.where(unseen, np.nan, values.astype(np.float64))",
        "values.astype(np.float64)",
        "tests/scoring/test_trajectories.py::test_a_sample_without_visits_is_nan_and_so_is_an_empty_table",
    ),
    Mutation(
        "dualfast/scoring/trajectories.py",
        "np.take_along_axis(probs, order, 0)",
        "probs[:most]",
        "tests/scoring/test_trajectories.py::test_logged_trajectories_are_scored_by_visit",
    ),
    Mutation(
        "dualfast/scoring/scores.py",
        'about["extra"] = dict(self.extra_keep)',
        "pass",
        "tests/scoring/test_trajectories.py::test_columns_go_through_parquet",
    ),
]


def copy_of_the_tree(target: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    built = [str(file.relative_to(ROOT)) for file in (ROOT / "dualfast").glob("_C*")]
    for name in filter(None, listed + built):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    # An editable install would otherwise serve dualfast.kernels from the tree itself.
    (target / "dualfast" / "kernels").symlink_to("../kernels")


def run(tree: Path, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
    tests = list(tests)
    env = os.environ | {"PYTHONPATH": str(tree)}
    if tests[0].startswith(KERNELS):
        env["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--disable-warnings", *tests]
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)


def goes_red(tree: Path, mutation: Mutation) -> str:
    """What is wrong with the mutation; empty when its test fails as it should."""
    file = tree / mutation.file
    whole = file.read_text()
    if whole.count(mutation.old) != 1:
        return f"the old text stands {whole.count(mutation.old)} times in the file"
    file.write_text(whole.replace(mutation.old, mutation.new))
    try:
        if file.suffix in (".cpp", ".h"):
            build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
            built = subprocess.run(build, cwd=tree, capture_output=True, text=True)
            if built.returncode != 0:
                return f"it does not build:\n{built.stderr[-2000:]}"
        done = run(tree, [mutation.test])
    finally:
        file.write_text(whole)
    # 1 is a failed test; anything else is one that did not run.
    return "" if done.returncode == 1 else f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr}"


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [mutation for mutation in MUTATIONS if word in mutation.file + " " + mutation.test]
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_of_the_tree(tree)
        for interpreted in (True, False):
            tests = dict.fromkeys(m.test for m in chosen if m.test.startswith(KERNELS) == interpreted)
            done = run(tree, tests) if tests else None
            if done is not None and done.returncode != 0:
                print(done.stdout[-4000:] + done.stderr, "the tests fail before anything is broken", sep="\n")
                return 1
        for mutation in sorted(chosen, key=lambda mutation: mutation.file):
            wrong = goes_red(tree, mutation)
            survived += bool(wrong)
            print(
                f"{'GREEN' if wrong else 'red':5}  {mutation.file}: {mutation.old.strip()!r} -> {mutation.new!r}",
                flush=True,
            )
            if wrong:
                print(f"       {mutation.test}: {wrong}")
    print(f"{len(chosen) - survived} of {len(chosen)} mutations seen")
    return 1 if survived or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
