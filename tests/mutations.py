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
LOADING = "tests/loading/"
INVENTORY = "tests/data/test_inventory.py::"
RESUMABLE = "tests/storage/test_resumable.py::"


class Mutation(NamedTuple):
    """In `file` the text `old` becomes `new`; `test` must fail."""

    file: str
    old: str
    new: str
    test: str


MUTATIONS = [
    Mutation(
        "dualfast/data/sources/registry.py",
        "names = OF_FILES + (OF_TABLES if",
        "names = OF_FILES + (() if",
        "tests/runs/test_datasets.py::test_a_run_by_a_column_of_a_table_goes_on",
    ),
    Mutation(
        "dualfast/data/sources/pixel_table.py",
        "label = named[0] if",
        "label = 0 if",
        "tests/data/sources/test_file_list.py::test_pixels_before_their_label",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        "is_number(row[0]) and is_file(row[1]) for",
        "False for",
        "tests/data/sources/test_label_table.py::test_classes_of_several_words_are_never_cut",
    ),
    Mutation(
        "dualfast/data/sources/file_list.py",
        "image and table.names is None else MANY_ROWS",
        "image and table.names is None else 10**9",
        "tests/data/sources/test_file_list.py::test_a_running_number_below_a_header_is_no_class",
    ),
    Mutation(
        "dualfast/data/sources/folder.py",
        "len(first) >= MANY_INNER * len(below)",
        "False",
        "tests/data/sources/test_folder.py::test_versions_of_one_data_set_are_no_classes",
    ),
    Mutation(
        "dualfast/data/sources/arrays.py",
        "if image.mode not in PIL_MODES:",
        "if False:",
        "tests/data/sources/test_arrays.py::test_images_of_pillow_whose_arrays_are_not_what_they_show",
    ),
    Mutation(
        "dualfast/runs/classes.py",
        "if unknown == [0] and",
        "if False and",
        "tests/runs/test_datasets.py::test_labels_that_begin_at_another_number_are_refused",
    ),
    Mutation(
        "dualfast/runs/parts.py",
        "if written is not None and not _is_there(config.data):",
        "if False:",
        "tests/runs/test_datasets.py::test_a_run_whose_data_are_gone_or_moved_goes_on",
    ),
    Mutation(
        "dualfast/runs/rundir.py",
        "(os.path.exists(now) and not any(map(os.path.exists, places)))",
        "True",
        "tests/runs/test_datasets.py::test_a_run_whose_data_are_gone_or_moved_goes_on",
    ),
    Mutation(
        "dualfast/runs/auditing.py",
        'if kind == "table" and has_decisions(out):',
        "if False:",
        "tests/runs/test_auditing.py::test_wrong_labels_of_the_digits_come_first",
    ),
    Mutation(
        "dualfast/cli.py",
        "    check_csv_beside(args.out)\n",
        "",
        "tests/test_cli.py::test_another_table_beside_a_list_is_not_replaced",
    ),
    Mutation(
        "dualfast/scoring/scores.py",
        'if labels.dtype.kind == "f" and not',
        "if False and not",
        "tests/scoring/test_scores.py::test_labels_of_a_table_are_class_numbers",
    ),
    Mutation(
        "dualfast/loading/loader.py",
        '"order_crc": crc32(repr(self._order).encode()),',
        '"order_crc": 0,',
        "tests/loading/test_cursor.py::test_a_state_of_another_order_is_refused",
    ),
    Mutation(
        "dualfast/scoring/trajectories.py",
        'or "margin" in names[:1]',
        "or False",
        "tests/scoring/test_trajectories.py::test_a_function_of_the_margin_alone_is_refused",
    ),
    Mutation(
        "dualfast/scoring/trajectories.py",
        "            _FAILED.add(one.name)\n            raise ValueError(\n",
        "            raise ValueError(\n",
        "tests/scoring/test_trajectories.py::test_a_function_of_another_shape_may_be_replaced",
    ),
    Mutation(
        "dualfast/scoring/table.py",
        'self.trajectories.check_state(state["trajectories"], int(visits.max()))',
        "pass",
        "tests/scoring/test_trajectories.py::test_states_with_other_trajectories_change_nothing",
    ),
    Mutation(
        "dualfast/ops/step_args.py",
        "lru_cache(maxsize=256, typed=True)",
        "lru_cache(maxsize=256)",
        "tests/test_arguments.py::test_an_option_is_checked_whatever_was_given_before",
    ),
    Mutation(
        "dualfast/ops/step_args.py",
        "if window > layout.MAX_VISITS:",
        "if False:",
        "tests/test_arguments.py::test_numbers_that_cannot_be_are_named",
    ),
    Mutation(
        "dualfast/scoring/loss.py",
        "and value.numel() == 1",
        "and False",
        "tests/test_arguments.py::test_numbers_that_cannot_be_are_named",
    ),
    Mutation(
        "dualfast/selection/files.py",
        "    _check_no_input(out, [*paths, spec.exclude, spec.force])\n",
        "",
        "tests/selection/test_spec.py::test_a_list_never_takes_the_place_of_what_it_is_drawn_from",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        "value.item() if isinstance(value, np.generic) else value for",
        "value for",
        "tests/selection/test_spec.py::test_the_sidecar_is_read_as_it_was_written",
    ),
    Mutation(
        "dualfast/cli.py",
        "if f.name in OF_THE_LIST}",
        "if f.name in ()}",
        "tests/test_cli.py::test_like_takes_no_flags_beside",
    ),
    Mutation(
        "dualfast/cli_parse.py",
        "isinstance(default, bool) and default == on:",
        "False:",
        "tests/test_cli.py::test_switches_may_say_what_holds_anyway",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        " and not has_usual_name(rows[0][0], FILE_NAMES)",
        "",
        "tests/data/sources/test_label_table.py::test_classes_of_several_words_are_never_cut",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        "elif has_header and len(rows[0]) == 2:",
        "elif has_header and len(rows[0]) == 9:",
        "tests/data/sources/test_label_table.py::test_classes_of_several_words_are_never_cut",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        "if len({(row[1], row[2]) for row in rows}) > len({row[1] for row in rows}):",
        "if False:",
        "tests/data/sources/test_label_table.py::test_classes_of_several_words_are_never_cut",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        "    if all(map(is_number, first)):\n        return False\n",
        "",
        "tests/data/sources/test_file_list.py::test_a_table_of_pixels_without_header_loses_no_row",
    ),
    Mutation(
        "dualfast/data/sources/file_list.py",
        "if 2 * len(listed) >= len(images):",
        "if True:",
        "tests/data/sources/test_file_list.py::test_a_list_of_few_of_the_images_is_not_taken_unasked",
    ),
    Mutation(
        "dualfast/data/sources/file_list.py",
        "for row in whole.rows if split and",
        "for row in table.rows if split and",
        "tests/data/sources/test_label_table.py::test_the_folders_that_a_table_lists_are_splits[False]",
    ),
    Mutation(
        "dualfast/data/sources/folder.py",
        "if are_below_letters(scan.folders):",
        "if False:",
        "tests/data/sources/test_folder.py::test_class_folders_below_their_first_letters",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        " and b[:1].lower() == a.lower()",
        "",
        "tests/data/sources/test_folder.py::test_class_folders_below_their_first_letters",
    ),
    Mutation(
        "dualfast/data/sources/folder.py",
        "below >= set(classes) - {outer}",
        "False",
        "tests/data/sources/test_folder.py::test_class_folders_that_hold_the_others_again",
    ),
    Mutation(
        "dualfast/data/sources/archive.py",
        "if lists and len(",
        "if False and len(",
        "tests/data/sources/test_archive.py::test_a_list_of_labels_in_an_archive_is_not_read",
    ),
    Mutation(
        "dualfast/data/sources/joined.py",
        "if len(splits := shards.splits_in(files)) > 1:",
        "if (splits := shards.splits_in(files)) is None:",
        "tests/data/sources/test_joined.py::test_files_given_one_by_one",
    ),
    Mutation(
        "dualfast/data/sources/joined.py",
        "if not remark.endswith((shards.INCOMPLETE, shards.BESIDE))",
        "",
        "tests/data/sources/test_joined.py::test_files_given_one_by_one",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        "return [means[BITS[cell]] for cell in cells]",
        "return [means[1 - BITS[cell]] for cell in cells]",
        "tests/data/sources/test_label_table.py::test_a_switch_of_a_split_is_understood_by_its_name",
    ),
    Mutation(
        "dualfast/errors.py",
        "part if COMMAND.match(part) else",
        "",
        "tests/test_errors.py::test_messages_in_the_words_of_the_command_line",
    ),
    Mutation(
        "dualfast/data/index_list.py",
        "if len(array) == n_samples and high <= 1 < n_samples - 1:",
        "if False:",
        "tests/data/test_index_list.py",
    ),
    Mutation(
        "dualfast/runs/datasets.py",
        "folder = run_dir.rewritten if given.changed else run_dir.path",
        "if given.changed:\n        run_dir.start_over()\n    folder = run_dir.path",
        "tests/runs/test_datasets.py::test_what_refuses_the_changed_data_leaves_the_run_as_it_was",
    ),
    Mutation(
        "dualfast/runs/rundir.py",
        'path.suffix == ".beton"',
        'path.suffix != ".beton"',
        "tests/runs/test_rundir.py::test_images_are_taken_over_behind_their_sidecars",
    ),
    Mutation(
        "dualfast/runs/session.py",
        "            check_ratios(n_samples, n_classes)\n            side",
        "            side",
        "tests/runs/test_datasets.py::test_a_ratio_that_keeps_nothing_is_refused_before_anything_is_written",
    ),
    Mutation(
        "dualfast/runs/parts.py",
        "test = sources.flat_test(config.data)",
        "test = None",
        "tests/runs/test_datasets.py::test_a_flat_folder_of_test_images_needs_its_own_table",
    ),
    Mutation(
        "dualfast/data/sources/arrays.py",
        '_OF_TENSORS if hasattr(images, "permute")',
        '_OF_TENSORS if hasattr(images, "permuted")',
        "tests/data/sources/test_arrays.py::test_images_in_another_form_are_refused_with_what_changes_it",
    ),
    Mutation(
        "dualfast/runs/progress.py",
        "leave=False",
        "leave=True",
        "tests/runs/test_progress.py::test_a_terminal_has_a_bar_that_goes_in_the_end",
    ),
    Mutation(
        "dualfast/runs/progress.py",
        "printable(line), flush=True",
        "printable(line)",
        "tests/runs/test_progress.py::test_a_file_has_lines_alone_at_once",
    ),
    Mutation(
        "dualfast/runs/progress.py",
        "or images == 0 or",
        "or",
        "tests/runs/test_progress.py::test_nothing_to_do_has_no_bar",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        "_guarded(text) if guard else text",
        "text",
        "tests/data/sources/test_label_table.py::test_spaces_in_quotes_belong_to_names",
    ),
    Mutation(
        "dualfast/data/sources/labels.py",
        'JOINED = "|,;/+& "',
        'JOINED = "|,;"',
        "tests/data/sources/test_parquet.py::test_several_classes_in_a_text_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/labels.py",
        "WORDS_OF_A_CAPTION = 5",
        "WORDS_OF_A_CAPTION = 50",
        "tests/data/sources/test_parquet.py::test_captions_are_no_classes",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        "other = found.setdefault(name.lower(), name)",
        "found[name.lower()] = other = name",
        "tests/data/sources/test_folder.py::test_splits_that_differ_in_case_alone_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        "not lower.isdisjoint(OF_MASKS) and",
        "False and",
        "tests/data/sources/test_folder.py::test_folders_in_classes_that_are_no_part_of_the_class",
    ),
    Mutation(
        "dualfast/data/sources/archive.py",
        "named = by_split(path, [name",
        "named = by_split(path, [name.lower()",
        "tests/data/sources/test_archive.py::test_splits_in_an_archive_that_differ_in_case_alone_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/registry.py",
        "archives = archive.KIND.splits(bare)",
        "archives: dict[str, str] = {}",
        "tests/data/sources/test_archive.py::test_archives_that_are_splits_are_addressed_as_folders_are",
    ),
    Mutation(
        "dualfast/data/sources/arrays.py",
        "other.lower() == name.lower() and other != name",
        "False",
        "tests/data/sources/test_arrays.py::test_arrays_that_differ_in_case_alone_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/arrays.py",
        "labels.max() >= len(class_names)",
        "labels.max() > len(class_names)",
        "tests/data/sources/test_arrays.py::test_names_and_other_arrays_of_an_npz",
    ),
    Mutation(
        "dualfast/data/sources/file_list.py",
        "sorted(paths, key=str.casefold)",
        "sorted(paths)",
        "tests/data/sources/test_file_list.py::test_labels_alone_of_names_in_two_cases_are_refused",
    ),
    Mutation(
        "dualfast/runs/datasets.py",
        "test.payload(row) == train.payload(int(rows[row]))",
        "True",
        "tests/runs/test_datasets.py::test_training_images_among_the_test_images_are_counted",
    ),
    Mutation(
        "dualfast/data/sources/remote.py",
        '"*[" if is_query else',
        '"*?[" if is_query else',
        "tests/data/sources/test_remote.py::test_a_file_behind_a_query_and_its_address",
    ),
    Mutation(
        "dualfast/data/sources/remote.py",
        'return "/".join(level[0] for level in takewhile',
        'return "//".join(level[0] for level in takewhile',
        "tests/data/sources/test_remote.py::test_a_file_behind_a_query_and_its_address",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        "sorted(name for name in found if name.lower() not in SPLIT_NAMES)",
        "sorted(found)",
        "tests/data/sources/test_file_list.py::test_tables_that_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/folder.py",
        'if _MASK.sub("", path) in stems',
        "if path",
        "tests/data/sources/test_folder.py::test_masks_beside_their_images_are_said",
    ),
    Mutation(
        "dualfast/runs/parts.py",
        "path == run_dir.train_beton and is_of_table",
        "path != run_dir.train_beton and is_of_table",
        "tests/runs/test_datasets.py::test_a_flat_folder_of_test_images_needs_its_own_table",
    ),
    Mutation(
        "dualfast/runs/parts.py",
        '"test_labels", str(error))',
        '"labels", str(error))',
        "tests/runs/test_datasets.py::test_a_flat_folder_of_test_images_needs_its_own_table",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        "int(name) if _is_number(name) else name",
        "name",
        "tests/selection/test_spec.py::test_the_sidecar_is_read_as_it_was_written",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        "if own[:shared] == listed[:shared] and not is_other_split:",
        "if not is_other_split:",
        "tests/data/sources/test_file_list.py::test_the_folders_of_a_listed_path_count",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        " and not is_other_split:",
        ":",
        "tests/data/sources/test_file_list.py::test_the_table_of_the_training_images_is_none_of_the_test_images",
    ),
    Mutation(
        "dualfast/data/sources/file_list.py",
        "sorted(paths, key=_by_number)",
        "sorted(paths)",
        "tests/data/sources/test_file_list.py::test_labels_alone_of_numbers_without_zeros_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/archive.py",
        "(m.parts and m.kind == FOLDER)",
        "m.kind == FOLDER",
        "tests/data/sources/test_archive.py::test_archives_with_entries_for_folders",
    ),
    Mutation(
        "dualfast/data/sources/archive.py",
        "if not are_splits(names, {parts[0] for parts in below if len(parts) > 2}):",
        "if not all(name.lower() in SPLIT_NAMES for name in names):",
        "tests/data/sources/test_archive.py::test_splits_beside_another_folder_are_splits",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        " or named.issuperset(of_classes)",
        "",
        "tests/data/sources/test_splits.py::test_splits_beside_another_folder_are_no_classes",
    ),
    Mutation(
        "dualfast/runs/classes.py",
        "and not any(map(str.isdecimal, train.class_names or own))",
        "",
        "tests/runs/test_classes.py::test_a_class_that_the_training_images_lack_is_named",
    ),
    Mutation(
        "dualfast/runs/export.py",
        '    if form != "csv":\n        _check_outside(run_dir, target)\n',
        "",
        "tests/runs/test_originals.py::test_an_export_into_the_data_is_refused",
    ),
    Mutation(
        "dualfast/data/beton/compact.py",
        "    if not is_compacted:",
        "    if False:",
        "tests/data/beton/test_compact.py::test_only_what_compact_made_is_replaced",
    ),
    Mutation(
        "csrc/resize.cpp",
        "sums[c] += weight[k] * in[3 * k + c]",
        "sums[c] += weight[k] * in[3 * k]",
        "tests/ops/test_images.py::test_resizing_against_float64",
    ),
    Mutation(
        "csrc/images.cpp",
        "scratch.resizer.block(y - overlap.y0)",
        "scratch.resizer.block(0)",
        "tests/ops/test_images.py::test_resizing_against_float64",
    ),
    Mutation(
        "dualfast/arguments.py",
        "tensor.detach().cpu().resolve_conj().resolve_neg()",
        "tensor.detach().cpu().resolve_conj()",
        "tests/test_arguments.py::test_as_array",
    ),
    Mutation(
        "dualfast/arguments.py",
        '    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))',
        "    return array",
        "tests/test_arguments.py::test_as_array",
    ),
    Mutation(
        "dualfast/arguments.py",
        "    if np.ma.is_masked(given):",
        "    if False:",
        "tests/test_arguments.py::test_as_array",
    ),
    Mutation(
        "dualfast/scoring/loss.py",
        "            _check_dense(logits=logits, targets=inputs.targets, index=inputs.index, weight=inputs.weight)\n",
        "",
        "tests/test_arguments.py::test_tensors_of_a_step",
    ),
    Mutation(
        "dualfast/config.py",
        "isinstance(value, int | kind) and not isinstance(value, bool)",
        "True",
        "tests/test_arguments.py::test_options_have_types",
    ),
    Mutation(
        "dualfast/_moved.py",
        'if package != module and (module in MOVED or _now(module, name) == ""):',
        "if False:",
        "tests/test_public_names.py::test_every_name_of_0_1_is_there_or_said_to_be_gone",
    ),
    Mutation(
        "dualfast/cli_parse.py",
        "return [] if wanted == defaults[option] else",
        "return",
        "tests/test_cli.py::test_switches_may_have_a_value",
    ),
    Mutation(
        "dualfast/scoring/loss.py",
        "    if not (low >= 0 and abs(far - 1) <= SUM_TOLERANCE):",
        "    if not (low >= 0 or abs(far - 1) <= SUM_TOLERANCE):",
        "tests/scoring/test_loss.py::test_mixed_targets_that_cannot_be_scored_record_nothing",
    ),
    Mutation(
        "dualfast/data/images.py",
        "0xFFFF - values if white_is_zero else values",
        "values",
        "tests/data/test_images.py::test_tiffs_whose_zero_is_white",
    ),
    Mutation(
        "dualfast/data/sources/shards.py",
        "low, high = min(texts), max(texts)",
        "low, high = min(texts), min(texts)",
        "tests/data/sources/test_shards.py::test_gaps_between_numbered_shards_are_said",
    ),
    Mutation(
        "dualfast/data/columns.py",
        "    others = [name for name in found if name != used]",
        "    others: list[str] = []",
        "tests/data/sources/test_parquet_columns.py::test_columns_that_could_be_meant_too_are_said",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        "and not _is_coordinate(name, names)]",
        "]",
        "tests/data/sources/test_label_table.py::test_tables_that_are_refused",
    ),
    Mutation(
        "dualfast/runs/classes.py",
        "    if len(in_other_forms) == len(known):",
        "    if False:",
        "tests/runs/test_classes.py::test_classes_are_matched_by_name",
    ),
    Mutation(
        "dualfast/data/sources/archive.py",
        "    if os.path.isdir(path) and not split_folders(path):",
        "    if os.path.isdir(path):",
        "tests/data/sources/test_splits.py::test_archives_that_are_called_like_splits_are_these",
    ),
    Mutation(
        "dualfast/data/sources/splits.py",
        "return [name for name, address in divided.items() if address not in used]",
        "return []",
        "tests/data/sources/test_splits.py::test_arrays_of_a_third_split_are_named",
    ),
    Mutation(
        "dualfast/data/sources/webdataset.py",
        "if self.labels.get(key) != label}",
        "if False}",
        "tests/data/sources/test_webdataset.py::test_labels_that_differ_within_a_sample_are_said",
    ),
    Mutation(
        "dualfast/runs/export.py",
        "    if part.is_symlink():  # others",
        "    if False:  # others",
        "tests/runs/test_export.py::test_nothing_is_written_or_deleted_through_a_link",
    ),
    Mutation(
        "dualfast/runs/rundir.py",
        "folder = folder or self._folder() or os.getcwd()",
        "folder = os.getcwd()",
        "tests/runs/test_export.py::test_relative_paths_are_those_of_the_run",
    ),
    Mutation(
        "dualfast/runs/originals.py",
        "for name in names]",
        "for name in [text]]",
        "tests/runs/test_export.py::test_names_that_are_not_utf8_are_found",
    ),
    Mutation(
        "dualfast/runs/originals.py",
        'if name.is_absolute() or ".." in name.parts:',
        "if name.is_absolute():",
        "tests/runs/test_export.py::test_a_file_outside_of_the_data_is_not_read",
    ),
    Mutation(
        "dualfast/data/names.py",
        "    if metadata.num_rows != n_samples or not plain:",
        "    if metadata.num_rows != n_samples:",
        "tests/data/test_names.py::test_names_that_grow_when_they_are_read_are_refused",
    ),
    Mutation(
        "dualfast/training/checkpoint_files.py",
        "if sum(entry.file_size for entry in archive.infolist()) > len(body):",
        "if False:",
        "tests/training/test_checkpoint.py::test_a_checkpoint_that_grows_when_it_is_read_is_refused",
    ),
    Mutation(
        "dualfast/runs/rundir.py",
        '("train.beton.partial", "test.beton.partial", ".config.yaml.")',
        '("train.beton.partial", "test.beton.partial")',
        "tests/runs/test_rundir.py::test_a_call_that_was_killed_while_it_wrote_its_configuration_can_be_repeated",
    ),
    Mutation(
        "dualfast/interrupts.py",
        "self._interrupted or _importing(frame)",
        "self._interrupted",
        "tests/test_interrupts.py::test_an_interrupt_during_an_import_ends_the_process_at_once",
    ),
    Mutation(
        "dualfast/loading/ffcv_graph.py",
        "self.memory_manager.guard.check()",
        "pass",
        "tests/loading/test_ffcv_graph.py::test_a_file_cut_short_after_the_check_is_an_error",
    ),
    Mutation(
        "csrc/guard.cpp",
        "        map.cut = true;\n        return;",
        "        break;",
        "tests/loading/test_ffcv_graph.py::test_a_file_cut_short_after_the_check_is_an_error",
    ),
    Mutation(
        "dualfast/runs/export.py",
        '{"..", "/"} & set(inside.parts)',
        "False",
        "tests/runs/test_export.py::test_a_name_that_leads_outside_is_refused",
    ),
    Mutation(
        "dualfast/runs/export.py",
        "        if any(out.iterdir()):\n",
        "        if False:\n",
        "tests/runs/test_export.py::test_nothing_is_overwritten",
    ),
    Mutation(
        "dualfast/runs/originals.py",
        "if (stat.st_size, stat.st_mtime_ns) == (sizes[row], times[row]):",
        "if True:",
        "tests/runs/test_export.py::test_an_original_that_changed_is_never_taken",
    ),
    Mutation(
        "dualfast/scoring/loss.py",
        "dual_loss(logits, own, index, table, weight=weight",
        "dual_loss(logits, targets.argmax(1), index, table, weight=weight",
        "tests/scoring/test_loss.py::test_mixed_targets_give_torchs_loss_and_score_the_own_label",
    ),
    Mutation(
        "dualfast/scoring/loss.py",
        "targets, index = _widened(targets), _widened(index)\n",
        "pass\n",
        "tests/scoring/test_loss.py::test_narrow_integers_are_taken",
    ),
    Mutation(
        "dualfast/data/beton/publish.py",
        "    checksums.save(path, sums, waiting=True)\n    partial.finish()\n",
        "    partial.finish()\n    checksums.save(path, sums, waiting=True)\n",
        "tests/test_fault_points.py::test_a_failure_anywhere_leaves_the_old_state_or_the_new_one[compact]",
    ),
    Mutation(
        "dualfast/data/beton/compact.py",
        "            checked(start + length)\n",
        "",
        "tests/data/beton/test_checksums.py::test_compact_copies_no_damage",
    ),
    Mutation(
        "dualfast/data/beton/verify.py",
        "if self._time() != self._modified:",
        "if False:",
        "tests/data/beton/test_checksums.py::test_pages_are_checked_when_first_read_and_after_a_write",
    ),
    Mutation(
        "dualfast/interrupts.py",
        "if not self._closed.wait(GRACE):",
        "if False:",
        "tests/test_interrupts.py::test_an_interrupt_that_does_not_arrive_ends_the_process",
    ),
    Mutation(
        "dualfast/storage/files.py",
        "os.O_CREAT | os.O_NOFOLLOW",
        "os.O_CREAT",
        "tests/storage/test_files.py::test_what_was_put_under_a_foreseeable_name_is_not_written_to",
    ),
    Mutation(
        "dualfast/storage/files.py",
        "status.st_nlink <= 1",
        "True",
        "tests/storage/test_files.py::test_what_was_put_under_a_foreseeable_name_is_not_written_to",
    ),
    Mutation(
        "dualfast/storage/npy.py",
        "> n_bytes - file.tell()",
        "> 1 << 60",
        "tests/storage/test_npy.py::test_headers_are_not_believed",
    ),
    Mutation(
        "dualfast/errors.py",
        "character if character.isprintable() else",
        "character if True else",
        "tests/test_cli.py::test_names_of_files_do_not_reach_the_terminal_as_they_are",
    ),
    Mutation("kernels/step.py", "- hard * q)", "- hard * (1 - p))", KERNELS + "test_confident_rows_keep_their_digits"),
    Mutation(
        "kernels/step.py",
        "counted & inside & (again == 0)",
        "counted & inside",
        KERNELS + "test_programs_stay_in_their_tensors_and_touch_nothing_that_another_writes",
    ),
    Mutation(
        "kernels/step.py",
        'float("nan")), 0.0), mask=in_batch)',
        'float("nan")), 0.0), mask=row < count + 1)',
        KERNELS + "test_programs_stay_in_their_tensors_and_touch_nothing_that_another_writes",
    ),
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
        "csrc/register_step.cpp",
        "        args.lines = nullptr;\n",
        "",
        TRAINING + "test_a_paused_table_records_nothing",
    ),
    Mutation(
        "csrc/register_step.cpp",
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
        "v[1] = SHUFFLE(a, c, 2, 3, 6, 7);",
        "v[1] = SHUFFLE(a, c, 6, 7, 2, 3);",
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
        STEP + "test_sums_of_equal_terms_keep_their_digits[256-cpp]",
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
        "tests/ops/test_images.py::test_any_crop_is_cut_from_the_whole_image[size0-4:2:0-baseline]",
    ),
    Mutation(
        "csrc/jpeg.cpp",
        "if (level < 0)",
        "if (level < -1)",
        "tests/ops/test_images.py::test_damaged_files_give_an_image_or_are_left_and_never_crash",
    ),
    Mutation(
        "csrc/jpeg.cpp",
        "begin % shrink",
        "0 * begin",
        "tests/ops/test_images.py::test_smaller_decoding_keeps_the_place",
    ),
    Mutation(
        "csrc/jpeg.cpp",
        "square = info.max_h_samp_factor == info.max_v_samp_factor",
        "square = true",
        "tests/ops/test_images.py::test_large_crops_are_decoded_smaller[149-4:2:2]",
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
        "dualfast/loading/cursor.py",
        "return Cursor(self.epoch + 1) if self.running else self",
        "return Cursor(self.epoch) if self.running else self",
        LOADING + "test_cursor.py::test_epochs_count_up_and_can_be_set",
    ),
    Mutation(
        "dualfast/loading/cursor.py",
        "(*segments, EpochSegment(",
        "(EpochSegment(",
        LOADING + "test_cursor.py::test_other_ranks_continue_inside_an_epoch",
    ),
    Mutation(
        "dualfast/loading/loader.py",
        "        if self._cursor is before:\n",
        "        if True:\n",
        LOADING + "test_cursor.py::test_an_abandoned_iteration_leaves_its_position",
    ),
    Mutation(
        "dualfast/loading/loader.py",
        'self._seed = checked_int("seed", seed)\n        self._cursor = self._cursor.restart()',
        'self._seed = checked_int("seed", seed)',
        LOADING + "test_cursor.py::test_another_seed_begins_its_own_epoch",
    ),
    Mutation(
        "dualfast/loading/buffers.py",
        "if buffers.free]",
        "]",
        LOADING + "test_buffers.py::test_kept_batches_never_change_and_memory_is_reused",
    ),
    Mutation(
        "dualfast/loading/epoch.py",
        "int(step >= last - share.padding)",
        "0",
        LOADING + "test_read_plan.py::test_a_rank_that_has_padding_alone",
    ),
    Mutation(
        "dualfast/loading/order.py",
        "left[visited.ids[: visited.starts[batches]]] = False",
        "left[visited.ids] = False",
        LOADING + "test_order.py::test_an_epoch_that_other_ranks_continue_visits_every_sample_once",
    ),
    Mutation(
        "dualfast/loading/decode.py",
        "(square and size[0] != size[1])",
        "square",
        LOADING + "test_decode.py::test_default_sizes",
    ),
    Mutation(
        "dualfast/loading/ffcv_graph.py",
        "            Compiler.num_threads = before",
        "            pass",
        LOADING + "test_ffcv_graph.py::test_compile_threads_are_put_back",
    ),
    Mutation(
        "csrc/crops.cpp",
        "2 * reach + 1) - reach",
        "2 * reach) - reach",
        "tests/ops/test_crops.py::test_boxes_are_those_of_the_reference",
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
        "csrc/select_keys.cpp",
        "keys[i] = score[i] > 0 ? keys[i] : log_waits[i] + kZeroWeightKey;",
        "keys[i] = score[i] > 0 ? keys[i] : log_waits[i] + keys[i] + kZeroWeightKey;",
        "tests/selection/test_select.py::test_what_has_no_weight_is_drawn_uniformly",
    ),
    Mutation(
        "csrc/step.cpp",
        "values[row] >= limit) && counts(row)",
        "values[row] >= limit) && (counts(row) || true)",
        STEP + "test_the_index_of_an_ignored_row_may_be_anything",
    ),
    Mutation(
        "csrc/select_keys.cpp",
        "random_words(race, first, n, 1, buffer1)",
        "random_words(race, first, n, 0, buffer1)",
        "tests/selection/test_select.py::test_keys_are_those_of_the_reference[0]",
    ),
    Mutation(
        "csrc/select_keys.cpp",
        "0.3999999999940941908",
        "0.3999999990940941908",
        "tests/selection/test_select.py::test_keys_are_those_of_the_reference[0]",
    ),
    Mutation(
        "csrc/select_classify.cpp",
        "wait < weight * low - kNearOne",
        "wait < weight * (0 * low + high) - kNearOne",
        "tests/selection/test_select.py::test_sifting_decides_only_what_is_certain[12.0-4.0-float32-0]",
    ),
    Mutation(
        "csrc/select_approx.h",
        "3e-4 * powers",
        "0.0 * powers",
        "tests/selection/test_select.py::test_sifting_decides_only_what_is_certain[300.0-200.0-float32-0]",
    ),
    Mutation(
        "csrc/select_approx.h",
        "constexpr float kNearOne = 0x1p-23f;",
        "constexpr float kNearOne = 0;",
        "tests/selection/test_select.py::test_sifting_is_certain_for_the_rarest_numbers",
    ),
    Mutation(
        "csrc/select_approx.h",
        "constexpr uint32_t kMinWord = 1 << 12;",
        "constexpr uint32_t kMinWord = 1;",
        "tests/selection/test_select.py::test_sifting_is_certain_for_the_rarest_numbers",
    ),
    Mutation(
        "csrc/select_block.h",
        "std::min<uint32_t>(groups.narrow[first + i], none)",
        "std::min<uint32_t>(groups.narrow[first + i], none - 1)",
        "tests/selection/test_groups.py::test_a_number_out_of_range_is_in_no_group",
    ),
    Mutation(
        "csrc/select_groups.cpp",
        "std::nth_element(begin, nth, end);",
        "std::nth_element(begin, nth, end, std::greater<>());",
        "tests/selection/test_groups.py::test_ties_go_to_the_lower_position",
    ),
    Mutation(
        "csrc/select_groups.cpp",
        "return entry.first >= low;",
        "return entry.first < low || true;",
        "tests/selection/test_groups.py::test_a_group_is_settled_only_within_its_bracket",
    ),
    Mutation(
        "csrc/select_groups.cpp",
        "|| nth->first > high)",
        "|| nth->first > high + 9)",
        "tests/selection/test_groups.py::test_a_group_is_settled_only_within_its_bracket",
    ),
    Mutation(
        "csrc/select_classify.cpp",
        "high > reach ? INFINITY",
        "high > reach ? high",
        "tests/selection/test_groups.py::test_weights_out_of_the_range_of_float32",
    ),
    Mutation(
        "csrc/select_approx.h",
        "static_cast<float>(100 - reach)",
        "static_cast<float>(100 - 0 * reach)",
        "tests/selection/test_groups.py::test_weights_out_of_the_range_of_float32",
    ),
    Mutation(
        "csrc/select_columns.cpp",
        "labels[i] >= 0 && labels[i] < ",
        "labels[i] < ",
        "tests/selection/test_groups.py::test_labels_of_every_kind_are_numbered",
    ),
    Mutation(
        "csrc/select_columns.cpp",
        "count += !(values[i] >= low",
        "count += (values[i] < low",
        "tests/selection/test_groups.py::test_scores_outside_their_range_are_counted_and_found",
    ),
    Mutation(
        "csrc/select_ranks.cpp",
        "value += 0.0f;",
        "value += 0.0f * value;",
        "tests/selection/test_ranks.py::test_cuts_are_those_of_a_stable_sort",
    ),
    Mutation(
        "csrc/select_ranks.cpp",
        "cuts.ties[begin + at] <= before)",
        "cuts.ties[begin + at] < before)",
        "tests/selection/test_ranks.py::test_cuts_are_those_of_a_stable_sort",
    ),
    Mutation(
        "csrc/select_ranks.cpp",
        "seen[static_cast<size_t>(row * k + at)]++",
        "seen[static_cast<size_t>(row * k + at)]",
        "tests/selection/test_ranks.py::test_the_same_for_threads_and_levels",
    ),
    Mutation(
        "csrc/select_ranks.cpp",
        "return at < static_cast<T>(bands.count)",
        "return at <= static_cast<T>(bands.count)",
        "tests/selection/test_ranks.py::test_each_class_is_drawn_as_the_reference_draws_it",
    ),
    Mutation(
        "csrc/select_ranks.cpp",
        "block.keys[i] >= least[row]",
        "block.keys[i] > least[row]",
        "tests/selection/test_ranks.py::test_extents_leave_out_what_is_below",
    ),
    Mutation(
        "dualfast/selection/ranks.py",
        "whole = slot >= (node + 1) << bits",
        "whole = slot > (node + 1) << bits",
        "tests/selection/test_ranks.py::test_cuts_are_those_of_a_stable_sort",
    ),
    Mutation(
        "dualfast/selection/methods.py",
        "np.floor(float(self.mis_ratio) * sizes)",
        "np.rint(float(self.mis_ratio) * sizes)",
        "tests/selection/test_ranks.py::test_each_class_is_drawn_as_the_reference_draws_it",
    ),
    Mutation(
        "dualfast/selection/beta.py",
        "<= least + AUTO_NEAR)",
        "<= AUTO_NEAR)",
        "tests/selection/test_beta.py::test_the_nearest_of_those_that_come_near",
    ),
    Mutation(
        "dualfast/selection/beta.py",
        "crossing - (not up)",
        "crossing",
        "tests/selection/test_beta.py::test_the_nearest_of_those_that_come_near",
    ),
    Mutation(
        "csrc/select_bits.cpp",
        "const bool below = ratios[i] < low;",
        "const bool below = ratios[i] < std::max(low, high);",
        "tests/selection/test_select.py::test_narrowing_leaves_what_is_in_doubt",
    ),
    Mutation(
        "csrc/select_bits.cpp",
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
        "dualfast/runs/trial.py",
        "if ratio < 1 and kept_count(n_samples, ratio) == kept)",
        "if False)",
        "tests/runs/test_session.py::test_a_kept_list_is_trained_alike_by_run_and_by_train",
    ),
    Mutation(
        "dualfast/selection/quotas.py",
        'EXACT.create_decimal("0.5")',
        'EXACT.create_decimal("0")',
        "tests/selection/test_select.py::test_counts_are_exact",
    ),
    Mutation(
        "csrc/step.cpp",
        "kSerial = 1 << 17",
        "kSerial = 1 << 14",
        "tests/ops/test_step.py::test_a_small_batch_starts_no_threads",
    ),
    Mutation(
        "dualfast/selection/streaming.py",
        "left[side] -= len(more[-1])",
        "pass",
        "tests/selection/test_streaming.py::test_tied_scores_are_a_bit_each",
    ),
    Mutation(
        "dualfast/selection/streaming.py",
        "low = undecided_keys == params.low",
        "low = undecided_keys == np.nan",
        "tests/selection/test_streaming.py::test_tied_scores_are_a_bit_each",
    ),
    Mutation(
        "dualfast/selection/streaming.py",
        "row[1]))[: beta.TOP_SAMPLES]",
        "row[1]))[-beta.TOP_SAMPLES :]",
        "tests/selection/test_streaming.py::test_files_give_what_memory_gives",
    ),
    Mutation(
        "dualfast/runs/session.py",
        "            config.check_processes(ranks.size)\n",
        "            pass\n",
        "tests/runs/test_session.py::test_what_several_processes_cannot_score_is_refused_before_anything_is_written",
    ),
    Mutation(
        "dualfast/runs/session.py",
        "            fill=self.recipe.fill,\n",
        "",
        "tests/runs/test_session.py::test_images_are_normalised_and_filled_as_the_recipe_says",
    ),
    Mutation(
        "dualfast/training/fit.py",
        "eta_min=recipe.min_lr",
        "eta_min=0.0",
        "tests/training/test_fit.py::test_the_published_recipes_have_their_authors_optimizer",
    ),
    Mutation(
        "dualfast/runs/rundir.py",
        'loaded["asked"]["c_d"] = CIFAR10_C_D',
        "pass",
        "tests/runs/test_rundir.py::test_a_c_d_whose_name_is_gone_is_compared_as_its_number",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        "return replace(self, **numbers) if numbers else self",
        "return self",
        "tests/selection/test_spec.py::test_a_spec_is_resolved_once_and_saved_resolved",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        'if self.c_d == "auto":',
        "if isinstance(self.c_d, str) or c_d != 4:",
        "tests/selection/test_spec.py::test_a_spec_is_resolved_once_and_saved_resolved",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        "value != _DEFAULTS[name]}",
        "value == _DEFAULTS[name]}",
        "tests/selection/test_spec.py::test_the_sidecar_is_read_as_it_was_written",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        "**arguments | in_text)",
        "**in_text | arguments)",
        "tests/selection/test_spec.py::test_select_and_select_like_it",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        "_DEFAULTS.keys() - OF_THE_DRAW",
        "_DEFAULTS.keys() - OF_THE_DRAW - {'mislabel_cut'}",
        "tests/selection/test_spec.py::test_which_specs_can_stream",
    ),
    Mutation(
        "dualfast/selection/methods.py",
        "checks_scores: ClassVar[bool] = False",
        "checks_scores: ClassVar[bool] = True",
        "tests/selection/test_methods.py::test_a_weighted_method_refuses_scores_that_its_weights_hide",
    ),
    Mutation(
        "dualfast/selection/methods.py",
        'return "low" if score in LOW_IS_KEPT else "high"',
        'return "high"',
        "tests/selection/test_methods.py::test_valid_scores",
    ),
    Mutation(
        "dualfast/selection/methods.py",
        "valid &= column <= high",
        "valid &= column <= column",
        "tests/selection/test_methods.py::test_valid_scores",
    ),
    Mutation(
        "dualfast/selection/methods.py",
        "        left -= share\n",
        "        left -= 0\n",
        "tests/selection/test_select.py::test_strata_equal_the_reference",
    ),
    Mutation(
        "dualfast/selection/draw.py",
        "kept[np.flatnonzero(keys == last)[-over:]] = False",
        "kept[np.flatnonzero(keys == last)[:over]] = False",
        "tests/selection/test_select.py::test_smallest_and_largest_break_ties_by_position",
    ),
    Mutation(
        "dualfast/data/beton/write.py",
        "fits = self.end % self.page_size + size <= self.page_size",
        "fits = True",
        "tests/data/beton/test_write.py::test_no_sample_straddles_a_page",
    ),
    Mutation(
        "dualfast/data/beton/write.py",
        "if ptr != rows.end:",
        "if True:",
        "tests/data/beton/test_write.py::test_an_image_that_follows_another_needs_no_seek",
    ),
    Mutation(
        "dualfast/data/beton/encode.py",
        "return longest <= limit and (self.max_size is None or longest <= self.max_size)",
        "return longest <= limit",
        "tests/data/beton/test_write.py::test_pixels_are_stored_as_pillow_gives_them",
    ),
    Mutation(
        "dualfast/data/beton/encode.py",
        "payload.shape[2] < 4 and",
        "",
        "tests/data/sources/test_arrays.py::test_transparent_arrays_show_the_background",
    ),
    Mutation(
        "dualfast/data/sources/arrays.py",
        "max(1, PIECE // size)",
        "len(self)",
        "tests/data/sources/test_arrays.py::test_an_npz_takes_no_more_memory_than_a_piece",
    ),
    Mutation(
        "dualfast/data/sources/parquet.py",
        "buffer_size=BUFFER, pre_buffer=False",
        "buffer_size=BUFFER",
        "tests/data/sources/test_parquet.py::test_a_large_row_group_is_read_a_piece_at_a_time",
    ),
    Mutation(
        "dualfast/data/beton/write.py",
        "if image.payload_crc != payload_crc(payload):",
        "if False:",
        RESUMABLE + "test_steps_that_no_longer_agree_are_written_again[source]",
    ),
    Mutation(
        "dualfast/data/beton/write.py",
        "crc32(os.pread(file.fileno(), image.size, image.ptr)) == image.data_crc",
        "True",
        RESUMABLE + "test_steps_that_no_longer_agree_are_written_again[data]",
    ),
    Mutation(
        "dualfast/data/beton/write.py",
        "file.truncate(rows.end)  # an",
        "pass  # an",
        RESUMABLE + "test_steps_that_no_longer_agree_are_written_again[garbage]",
    ),
    Mutation(
        "dualfast/data/beton/write.py",
        "return finished, chain(batch[same:], chunks)",
        "return finished, chunks",
        RESUMABLE + "test_steps_that_no_longer_agree_are_written_again[later]",
    ),
    Mutation(
        "dualfast/data/beton/publish.py",
        "names.save(path, beton.fingerprint, waiting=True)",
        "names.save(path, beton.fingerprint)",
        RESUMABLE + "test_sidecars_are_those_of_the_file_whenever_it_stops[before its name-write]",
    ),
    Mutation(
        "dualfast/data/beton/publish.py",
        "checksums.save(path, sums, waiting=True)",
        "checksums.save(path, sums)",
        RESUMABLE + "test_sidecars_are_those_of_the_file_whenever_it_stops[before its name-write]",
    ),
    Mutation(
        "dualfast/data/beton/compact.py",
        'extents = 2 * kept["ptr"] + (kept["size"] > 0)',
        'extents = 2 * kept["ptr"] + 1',
        "tests/data/beton/test_compact.py::test_empty_fields_that_ffcv_wrote",
    ),
    Mutation(
        "dualfast/data/beton/verify.py",
        "first = int(damaged[0])",
        "first = int(damaged[-1])",
        "tests/data/beton/test_checksums.py::test_the_page_and_its_samples_are_named",
    ),
    Mutation(
        "dualfast/data/beton/tables.py",
        "if self.sums is not None and",
        "if False and",
        "tests/data/beton/test_checksums.py::test_a_wrong_label_is_noticed_on_opening",
    ),
    Mutation(
        "dualfast/data/beton/reader.py",
        "digest.update(self.labels.tobytes())",
        "pass",
        "tests/data/beton/test_write.py::test_fingerprint_depends_on_the_data_alone",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        "if os.path.commonpath((real, root)) != root:",
        "if False:",
        "tests/data/sources/test_folder.py::test_links_must_stay_inside",
    ),
    Mutation(
        "dualfast/data/sources/scan.py",
        "if entry.is_symlink():\n            inside(entry.path, self.real_root, self.follow_links)\n        self.paths",
        "self.paths",
        "tests/data/sources/test_folder.py::test_links_must_stay_inside",
    ),
    Mutation(
        "dualfast/data/sources/shards.py",
        "        inside(str(file), root, follow_links)\n",
        "",
        "tests/data/sources/test_shards.py::test_links_out_of_a_folder_of_shards",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        'os.path.basename(blobs) == "blobs" and',
        "False and",
        "tests/data/sources/test_shards.py::test_the_cache_of_the_hub_needs_no_flag",
    ),
    Mutation(
        "dualfast/data/sources/cifar_python.py",
        "    if name not in _KNOWN:",
        "    if False:",
        "tests/data/sources/test_cifar.py::test_other_pickles_are_refused_and_nothing_runs",
    ),
    Mutation(
        "dualfast/data/sources/cifar_python.py",
        "reshape(shape[::-1]).T if fortran else values.reshape(shape)",
        "reshape(shape[::-1]).T",
        "tests/data/sources/test_cifar.py::test_cifar_in_its_python_form",
    ),
    Mutation(
        "dualfast/data/sources/tar_files.py",
        'raise tarfile.ReadError(f"it is damaged',
        '_ = (f"it is damaged',
        "tests/data/sources/test_tar_files.py::test_a_damaged_header_is_not_the_end",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        "if any(row[width:])",
        "if False",
        "tests/data/sources/test_label_table.py::test_tables_that_are_refused",
    ),
    Mutation(
        "dualfast/data/beton/target.py",
        "(not len(made_of) and (len(now) or",
        "(False and (len(now) or",
        "tests/data/test_inventory.py::test_no_other_file_is_overwritten",
    ),
    Mutation(
        "dualfast/runs/trial.py",
        "for path in tables if path.exists()",
        "for path in tables[-1:] if path.exists()",
        "tests/runs/test_compatibility.py::test_ccs_of_0_1_goes_on_covering_aum",
    ),
    Mutation(
        "dualfast/data/sources/idx.py",
        "if n_bytes > os.path.getsize(path) * MAX_RATIO:",
        "if False:",
        "tests/data/sources/test_idx.py::test_idx_files_that_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        "if SEVERAL in found:",
        "if False:",
        "tests/data/sources/test_file_list.py::test_columns_and_folders_may_have_to_be_named",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        "found = files or once or found",
        "found = found",
        "tests/data/sources/test_label_table.py::test_tables_that_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        "if values.count(1) != 1:",
        "if False:",
        "tests/data/sources/test_label_table.py::test_tables_that_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        "if numbers or has_header or",
        "if has_header or",
        "tests/data/sources/test_label_table.py::test_lines_with_spaces_in_names",
    ),
    Mutation(
        "dualfast/data/sources/labels.py",
        "if len(parts) > 1 and is_joined:",
        "if False:",
        "tests/data/sources/test_label_table.py::test_tables_that_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/labels.py",
        "if n >= least and (distinct == n or distinct > max(FEW_TEXTS, n / 2)):",
        "if False:",
        "tests/data/sources/test_webdataset.py::test_texts_are_captions_beside_labels_and_where_all_differ",
    ),
    Mutation(
        "dualfast/data/sources/webdataset.py",
        "labelled = self.labels.keys() |",
        "labelled = set() |",
        "tests/data/sources/test_webdataset.py::test_texts_are_captions_beside_labels_and_where_all_differ",
    ),
    Mutation(
        "dualfast/data/sources/class_tars.py",
        "start + member.offset_data",
        "member.offset_data",
        "tests/data/sources/test_class_tars.py::test_class_tars_are_read_in_place",
    ),
    Mutation(
        "dualfast/data/sources/class_tars.py",
        'name.startswith(file.name[: -len(SUFFIX)] + "_") and ',
        "",
        "tests/data/sources/test_class_tars.py::test_shards_without_labels_are_no_classes",
    ),
    Mutation(
        "dualfast/data/sources/splits.py",
        "if not is_test.any():",
        "if False:",
        "tests/data/sources/test_splits.py::test_a_fraction_of_classes_of_one_image_leaves_no_test_images",
    ),
    Mutation(
        "dualfast/data/images.py",
        """return ";16" in str(mode) or""",
        "return",
        "tests/data/test_images.py::test_colours_of_16_bits_are_said_to_lose_8",
    ),
    Mutation(
        "dualfast/data/images.py",
        "if low < 0 or high > 0xFFFF:",
        "if False:",
        "tests/data/test_images.py::test_integers_beyond_16_bits_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/parquet.py",
        "statistics.null_count > 0",
        "False",
        "tests/data/sources/test_parquet.py::test_images_that_are_named_by_their_paths_are_files_of_the_data",
    ),
    Mutation(
        "dualfast/data/sources/parquet.py",
        "if follow_links or place.startswith(",
        "if True or place.startswith(",
        "tests/data/sources/test_parquet.py::test_images_that_are_named_by_their_paths_are_files_of_the_data",
    ),
    Mutation(
        "dualfast/data/sources/remote.py",
        "if copy.is_file() and copy.stat().st_mtime_ns == time * 10**9:",
        "if copy.is_file():",
        "tests/data/sources/test_remote.py::test_a_file_of_the_same_size_and_one_that_is_gone_are_noticed",
    ),
    Mutation(
        "dualfast/data/sources/remote.py",
        "                file.unlink()",
        "                pass",
        "tests/data/sources/test_remote.py::test_a_file_of_the_same_size_and_one_that_is_gone_are_noticed",
    ),
    Mutation(
        "dualfast/data/images.py",
        "kinds.append(DARK if 0 < high < DARKEST else DEEP)",
        "kinds.append(DEEP)",
        "tests/data/test_images.py::test_images_of_16_bits_are_told_from_those_that_turn_black",
    ),
    Mutation(
        "dualfast/runs/progress.py",
        "        if self.quiet:\n            print(",
        "        if False:\n            print(",
        "tests/runs/test_datasets.py::test_what_a_user_should_know_is_said_when_quiet",
    ),
    Mutation(
        "dualfast/data/sources/remote.py",
        'if os.path.isabs(name) or ".." in name.split("/"):',
        "if False:",
        "tests/data/sources/test_remote.py::test_urls_that_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/splits.py",
        "order_keys(ids, seed, 0)",
        "ids",
        "tests/data/sources/test_splits.py::test_what_is_held_out_is_stratified_and_depends_on_the_seed_alone",
    ),
    Mutation(
        "dualfast/data/sources/joined.py",
        "for prefix, files in zip(_prefixes(paths), parts",
        'for prefix, files in zip([""] * len(paths), parts',
        "tests/data/sources/test_joined.py::test_folders_are_joined_by_the_names_of_their_classes",
    ),
    Mutation(
        "dualfast/data/sources/labels.py",
        "(np.floor(array) != array) | np.isinf(array)",
        "np.isinf(array)",
        "tests/data/sources/test_parquet.py::test_labels_that_are_not_one_class_are_named_with_their_type[float]",
    ),
    Mutation(
        "dualfast/data/sources/parquet_columns.py",
        "found = images or structs or usual",
        "found = structs or images or usual",
        "tests/data/sources/test_parquet_columns.py::test_the_image_column_is_the_one_that_says_so_best",
    ),
    Mutation(
        "dualfast/data/sources/parquet_columns.py",
        "if names and columns.class_names and names != columns.class_names:",
        "if False:",
        "tests/data/sources/test_parquet.py::test_shards_may_differ_in_the_width_of_their_integers_only",
    ),
    Mutation(
        "dualfast/runs/commands.py",
        "try_scores(config.score_epochs)",
        "pass",
        "tests/runs/test_score_module.py::test_a_module_that_does_not_fit_is_named",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        'if "skip_bad" in about else {}',
        "if False else {}",
        "tests/selection/test_spec.py::test_skip_bad_of_0_1_is_skip_unscored",
    ),
    Mutation(
        "dualfast/scoring/trajectories.py",
        "epochs is None and n_epochs > max(n_samples, SURELY_EPOCHS)",
        "False",
        "tests/scoring/test_loss.py::test_bad_trajectories_are_named",
    ),
    Mutation(
        "dualfast/data/sources/webdataset.py",
        'base.partition(".")',
        'base.rpartition(".")',
        "tests/data/sources/test_webdataset.py::test_tar_files_that_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/scan.py",
        "elif is_image(entry.path):",
        "elif False:",
        INVENTORY + "test_images_are_read_whatever_their_suffix",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        'name.startswith("._") or ',
        "",
        INVENTORY + "test_what_systems_and_archivers_leave_is_skipped_and_other_empty_folders_are_named",
    ),
    Mutation(
        "dualfast/data/inventory.py",
        " | (before.times[old] != now.times[is_old])",
        "",
        INVENTORY + "test_a_beton_of_other_files_is_replaced_only_on_request[parquet]",
    ),
    Mutation(
        "dualfast/data/names.py",
        'if about["fingerprint"] != fingerprint:',
        "if False:",
        "tests/data/test_names.py::test_names_of_other_data_or_damaged",
    ),
    Mutation(
        "dualfast/runs/parts.py",
        "if not config.rewrite:",
        "if False:",
        "tests/runs/test_datasets.py::test_data_that_changed_are_refused_until_rewrite",
    ),
    Mutation(
        "dualfast/selection/quotas.py",
        "if count > -2:",
        "if count > -1:",
        "tests/selection/test_select.py::test_one_of_each",
    ),
    Mutation(
        "dualfast/data/images.py",
        "(*background, 255)",
        "(0, 0, 0, 255)",
        "tests/data/test_images.py::test_transparent_parts_show_the_background",
    ),
    Mutation(
        "dualfast/data/images.py",
        "values * 255 if high <= 1 else values",
        "values",
        "tests/data/test_images.py::test_floats_are_taken_from_0_to_1_or_to_255",
    ),
    Mutation(
        "dualfast/data/images.py",
        "for kind in _formats():",
        "for kind in Image.OPEN:",
        "tests/data/test_images.py::test_no_format_runs_a_program",
    ),
    Mutation(
        "dualfast/data/images.py",
        "(n_scans := _count_scans(data)) > MAX_JPEG_SCANS",
        "(n_scans := _count_scans(data)) > 4500",
        "tests/data/test_images.py::test_scans_of_a_jpeg_are_limited",
    ),
    Mutation(
        "dualfast/data/images.py",
        "if needed > MAX_IMAGE_BYTES:",
        "if False:",
        "tests/data/test_images.py::test_pixels_and_memory_are_limited",
    ),
    Mutation(
        "csrc/jpeg.cpp",
        "info->input_scan_number > static_cast<Decoder*>(info->client_data)->max_scans",
        "info->input_scan_number > (1 << 20)",
        "tests/ops/test_images.py::test_limits_on_scans_pixels_and_memory",
    ),
    Mutation(
        "csrc/jpeg.cpp",
        "max_memory_to_use = static_cast<long>(max_bytes)",
        "max_memory_to_use = static_cast<long>(max_bytes) * 0",
        "tests/ops/test_images.py::test_limits_on_scans_pixels_and_memory",
    ),
    Mutation(
        "dualfast/data/beton/tables.py",
        "for at in others:",
        "for at in []:",
        "tests/data/beton/test_tables.py::test_every_field_that_points_is_checked[bytes]",
    ),
    Mutation(
        "dualfast/data/beton/tables.py",
        '(rows["ptr"] != ptr).any() or (rows["sample_id"] != sample).any()',
        '(rows["sample_id"] != sample).any()',
        "tests/data/beton/test_tables.py::test_every_field_that_points_is_checked[array]",
    ),
    Mutation(
        "dualfast/data/beton/tables.py",
        "np.searchsorted(starts, ptr[empty]) % len(table)",
        'np.searchsorted(starts, ptr[empty], side="right") - 1',
        "tests/data/beton/test_tables.py::test_empty_values_are_found",
    ),
    Mutation(
        "dualfast/data/beton/format.py",
        'dtype.kind not in "biufcSUmM"',
        "False",
        "tests/data/beton/test_tables.py::test_arrays_have_the_size_that_their_field_says[array]",
    ),
    Mutation(
        "dualfast/data/beton/checksums.py",
        "fits = page_size >= MIN_PAGE and",
        "fits =",
        "tests/data/beton/test_checksums.py::test_sizes_in_the_crc_file_are_bounded_by_the_file",
    ),
    Mutation(
        "dualfast/storage/plain.py",
        "if depth > MAX_DEPTH:",
        "if False:",
        "tests/storage/test_plain.py::test_yaml_is_plain_values_only",
    ),
    Mutation(
        "dualfast/storage/plain.py",
        'getattr(event, "anchor", None) is not None or',
        "",
        "tests/storage/test_plain.py::test_yaml_is_plain_values_only",
    ),
    Mutation(
        "dualfast/selection/where.py",
        "if word.lower() not in FUNCTIONS:",
        "if False:",
        "tests/selection/test_where.py::test_all_else_is_refused",
    ),
    Mutation(
        "dualfast/selection/where.py",
        '"enable_external_access": "false"',
        '"enable_external_access": "true"',
        "tests/selection/test_where.py::test_duckdb_by_itself_is_shut_in",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        "if not trust and any(",
        "if any(",
        "tests/selection/test_spec.py::test_the_sidecar_is_read_as_it_was_written",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        '("where", "exclude", "force")}',
        '("where", "force")}',
        "tests/selection/test_spec.py::test_the_sidecar_is_read_as_it_was_written",
    ),
    Mutation(
        "dualfast/data/classes.py",
        "return high < FREE or high < SPARSEST",
        "return high < SPARSEST",
        "tests/data/test_classes.py::test_labels_may_have_gaps_but_not_be_sparse",
    ),
    Mutation(
        "dualfast/ops/step.py",
        "if options.inplace and overlaps_itself(logits):",
        "if False:",
        "tests/scoring/test_recording.py::test_inplace_leaves_logits_alone_whose_rows_share_memory",
    ),
    Mutation(
        "dualfast/config.py",
        "return short if float(short) == prune_ratio else",
        "return short if True else",
        "tests/runs/test_rundir.py::test_ratios_that_differ_have_lists_of_their_own",
    ),
    Mutation(
        "dualfast/loading/decode.py",
        "not 0 < bounds[0] <= bounds[1] <= most",
        "not bounds[0] <= bounds[1] <= most",
        "tests/loading/test_loader.py::test_bounds_of_random_crops_are_checked",
    ),
    Mutation(
        "dualfast/data/images.py",
        "gray = values >> 8",
        "gray = values & 255",
        "tests/data/test_images.py::test_sixteen_bits_become_eight",
    ),
    Mutation(
        "dualfast/data/index_list.py",
        "ordered[1:] == ordered[:-1]",
        "ordered[1:] > ordered[:-1] + ordered[1:]",
        "tests/data/test_index_list.py::test_ids_of_a_data_set_of_unknown_size",
    ),
    Mutation(
        "dualfast/data/index_list.py",
        "high < 8 * len(ids)",
        "high >= 0",
        "tests/data/test_index_list.py::test_ids_of_a_data_set_of_unknown_size",
    ),
    Mutation(
        "dualfast/config.py",
        "round(steps / math.ceil(kept / batch_size))",
        "round(steps / math.ceil(n_samples / batch_size))",
        "tests/test_config.py::test_a_subset_takes_as_many_epochs_or_steps",
    ),
    Mutation(
        "dualfast/cli.py",
        "except (DualfastError, ValueError, TypeError, OSError) as error:",
        "except (ValueError, TypeError, OSError) as error:",
        "tests/test_errors.py::test_each_of_ours_is_one_line",
    ),
    Mutation(
        "dualfast/runs/session.py",
        "if last(batch) > 1)",
        "if last(batch) > 0)",
        "tests/runs/test_session.py::test_no_last_batch_is_one_image",
    ),
    Mutation(
        "dualfast/runs/session.py",
        "{'score' if scoring else 'train'}",
        "{'train' if scoring else 'score'}",
        "tests/runs/test_compatibility.py::test_scoring_resumes_from_its_checkpoint",
    ),
    Mutation(
        "dualfast/runs/rundir.py",
        "set(noted) & set(request) - set(may_differ)",
        "set(noted) & set(request)",
        "tests/runs/test_rundir.py::test_another_run_is_refused_with_both_values",
    ),
    Mutation(
        "dualfast/runs/rundir.py",
        'None if max(epochs) == requested["score_epochs"] else max(epochs)',
        "None",
        "tests/runs/test_rundir.py::test_the_schedule_of_scoring_is_the_directory_s_unless_the_call_names_another",
    ),
    Mutation(
        "dualfast/runs/scoring.py",
        "epochs=planned)",
        "epochs=max(session.recipe.epochs, planned))",
        "tests/runs/test_session.py::test_scores_depend_on_their_own_schedule_and_not_on_the_retraining",
    ),
    Mutation(
        "dualfast/training/fit.py",
        "cross_entropy(logits.float(), ",
        "cross_entropy(logits, ",
        "tests/training/test_fit.py",
    ),
    Mutation(
        "dualfast/training/checkpoint_files.py",
        "if zlib.crc32(body) != int",
        "if zlib.crc32(body) < int",
        "tests/training/test_checkpoint.py::test_every_damaged_byte_is_noticed",
    ),
    Mutation(
        "dualfast/training/checkpoint_files.py",
        "before[KEPT - 1 :]",
        "before[KEPT:]",
        "tests/training/test_checkpoint.py::test_checkpoints_of_something_else_are_told_apart",
    ),
    Mutation(
        "dualfast/training/checkpoint.py",
        'if found.what["training"] != what["training"]:',
        "if False:",
        "tests/training/test_checkpoint.py::test_checkpoints_of_something_else_are_told_apart",
    ),
    Mutation(
        "dualfast/training/checkpoint_resume.py",
        "if size == ranks.size else len(there) == size)",
        "if size == ranks.size else len(there) > size)",
        "tests/training/test_checkpoint.py::test_another_number_of_ranks_shares_the_parts_in_order",
    ),
    Mutation(
        "dualfast/training/checkpoint_resume.py",
        "return rank * ranks.size // size",
        "return rank % ranks.size",
        "tests/training/test_checkpoint.py::test_another_number_of_ranks_shares_the_parts_in_order",
    ),
    Mutation(
        "dualfast/training/stop_signal.py",
        "if not self.in_training:",
        "if self.in_training:",
        "tests/training/test_checkpoint.py::test_a_signal_waits_for_the_step_of_a_training",
    ),
    Mutation(
        "dualfast/training/fit.py",
        'self.scheduler.load_state_dict(own["schedule"])',
        "pass",
        "tests/runs/test_compatibility.py::test_a_training_resumes_from_its_checkpoint",
    ),
    Mutation(
        "dualfast/training/fit.py",
        "        if real:\n",
        "        if True:\n",
        "tests/training/test_checkpoint.py::test_a_batch_of_padding_alone_does_not_count",
    ),
    Mutation(
        "dualfast/training/fit.py",
        "(self.state.epoch + 1) - self.loader.remaining",
        "self.state.epoch",
        "tests/training/test_checkpoint.py::test_a_schedule_ends_with_the_training_whatever_the_number_of_ranks",
    ),
    Mutation(
        "dualfast/storage/files.py",
        "os.unlink(name)",
        "pass",
        "tests/storage/test_files.py::test_atomic_leaves_the_old_file_when_the_writer_fails",
    ),
    Mutation(
        "dualfast/storage/records.py",
        'file.truncate(file.read().rfind(b"\\n") + 1)',
        "pass",
        "tests/runs/test_rundir.py::test_records_survive_a_line_cut_off_by_a_crash",
    ),
    Mutation(
        "dualfast/storage/locks.py",
        "return False",
        "return True",
        "tests/storage/test_locks.py::test_one_run_at_a_time",
    ),
    Mutation(
        "dualfast/storage/resumable.py",
        "if first != self._request_hash or not",
        "if not",
        "tests/storage/test_resumable.py::test_steps_that_no_longer_agree_are_written_again[option]",
    ),
    Mutation(
        "dualfast/comm/ranks.py",
        "if any(self.gather(error is not None)):",
        "if error is not None:",
        "tests/comm/test_ranks.py::test_three_processes_agree_and_disagree",
    ),
    Mutation(
        "dualfast/comm/collectives.py",
        "torch.argsort(to, stable=True)",
        "torch.arange(len(to))",
        "tests/comm/test_ranks.py::test_three_processes_agree_and_disagree",
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
        "value[kSeenMargin * args.rows] = seen.margin",
        "value[kSeenMargin * args.rows] = seen.el2n",
        STEP + "test_observations_are_what_the_lines_get",
    ),
    Mutation(
        "csrc/step_terms.h",
        "out.margin = out.el2n = out.entropy = out.prob_margin = zero + nan;",
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
        "csrc/register_step.cpp",
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
        "-values[layout.SEEN_P], values[layout.SEEN_P])",
        "values[layout.SEEN_P], -values[layout.SEEN_P])",
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
        "file.read([name])",
        "file.read([name, *found])",
        "tests/scoring/test_scores.py::test_columns_are_read_one_at_a_time",
    ),
    Mutation(
        "dualfast/scoring/scores.py",
        "column if order is None else column[order]",
        "column",
        "tests/scoring/test_scores.py::test_rows_in_any_order_are_held_to_their_checksums",
    ),
    Mutation(
        "dualfast/runs/reporting.py",
        "if trial not in self.specs:",
        "if True:",
        "tests/runs/test_reporting.py::test_auto_is_chosen_once_for_each_ratio_and_not_where_it_is_noted",
    ),
    Mutation(
        "dualfast/scoring/scores.py",
        'about["extra"] = dict(self.extra_keep)',
        "pass",
        "tests/scoring/test_trajectories.py::test_columns_go_through_parquet",
    ),
    Mutation(
        "csrc/step_terms.h",
        "(sums.true_exp - exp_neg<F>(sums.max_other - sums.max)) * inverse",
        "(sums.true_exp - sums.others) * inverse",
        STEP + "test_by_products_of_adversarial_rows",
    ),
    Mutation(
        "csrc/step_terms.h",
        "if (folded && work.beside) {",
        "if (work.beside) {",
        STEP + "test_lines_agree_with_the_reference[10-10-dtype0-cpp]",
    ),
    Mutation(
        "kernels/step.py",
        "prob_margin = p - tl.exp2(tl.minimum(-margin, 0.0) * LOG2E) * inverse",
        "prob_margin = p - q",
        KERNELS + "test_step_lines_equal_those_of_cpp",
    ),
    Mutation(
        "kernels/line.py",
        "tl.store(prob_margin_sums_ptr + index, prob_margin_sum, mask=folded)",
        "tl.store(prob_margin_sums_ptr + index, prob_margin_sum, mask=counted)",
        KERNELS + "test_step_lines_equal_those_of_cpp",
    ),
    Mutation(
        "dualfast/ops/step_torch.py",
        "true_p - wrong.amax(1)",
        "true_p - wrong.sum(1)",
        STEP + "test_lines_agree_with_the_reference[10-10-dtype0-torch]",
    ),
    Mutation(
        "dualfast/ops/step_torch.py",
        "(-margin.double()).exp()).clamp(max=1.0)",
        "(-margin.double()).exp())",
        STEP + "test_margins_of_probabilities_from_p_and_the_logit_margin",
    ),
    Mutation(
        "dualfast/scoring/table.py",
        "                setattr(self, name, None)\n",
        "                pass\n",
        "tests/scoring/test_table.py::test_a_state_of_version_01_has_no_aum_prob",
    ),
    Mutation(
        "dualfast/selection/methods.py",
        'default="aum_prob"',
        'default="aum"',
        "tests/scoring/test_baselines.py::test_ccs_takes_as_many_of_each_stratum_as_its_authors",
    ),
    Mutation(
        "csrc/line.h",
        "again ? packed + kVoteCount.at(1) : packed",
        "again || !again ? packed + kVoteCount.at(1) : packed",
        STEP + "test_lines_agree_with_the_reference[10-10-dtype0-cpp]",
    ),
    Mutation(
        "csrc/step.cpp",
        "|| args.late_margin_sums || args.votes;",
        "|| args.late_margin_sums;",
        STEP + "test_votes_start_with_the_lowest_wrong_class",
    ),
    Mutation(
        "csrc/step.cpp",
        "args.by_products && args.prob_margin_sums;",
        "false;",
        STEP + "test_by_products_of_adversarial_rows",
    ),
    Mutation(
        "csrc/step_few.h",
        "classes > 1 ? (y == 0) & 1 : Ints{}",
        "Ints{}",
        STEP + "test_votes_start_with_the_lowest_wrong_class",
    ),
    Mutation(
        "csrc/step_many.h",
        "x[c] == max_other && c != y",
        "x[c] == max_other && y >= 0",
        STEP + "test_votes_start_with_the_lowest_wrong_class[300-cpp]",
    ),
    Mutation(
        "kernels/step.py",
        "here & (col != true) & (wrong == max_other[:, None])",
        "here & (wrong == max_other[:, None])",
        KERNELS + "test_ties_among_the_wrong_classes_go_to_the_lowest",
    ),
    Mutation(
        "kernels/step.py",
        "tl.where(col == true, col + BLOCK, col)",
        "col + 0 * true",
        KERNELS + "test_ties_among_the_wrong_classes_go_to_the_lowest",
    ),
    Mutation(
        "csrc/step_terms.h",
        "args.late_margin_sums[id] += k * k * out.margin",
        "args.late_margin_sums[id] += k * out.margin",
        STEP + "test_lines_agree_with_the_reference[10-10-dtype0-cpp]",
    ),
    Mutation(
        "kernels/line.py",
        "k = (visits + 1).to(tl.float32)",
        "k = visits.to(tl.float32)",
        KERNELS + "test_step_lines_equal_those_of_cpp",
    ),
    Mutation(
        "dualfast/ops/step_torch.py",
        "(visits + 1).square() * seen",
        "visits.square() * seen",
        STEP + "test_lines_agree_with_the_reference[10-10-dtype0-torch]",
    ),
    Mutation(
        "kernels/line.py",
        "tl.store(votes_ptr + index, vote, mask=folded)",
        "tl.store(votes_ptr + index, vote, mask=counted)",
        KERNELS + "test_step_lines_equal_those_of_cpp",
    ),
    Mutation(
        "dualfast/ops/step_torch.py",
        "return ((z == largest) & other)",
        "return (z == largest)",
        STEP + "test_lines_agree_with_the_reference[10-10-dtype0-torch]",
    ),
    Mutation(
        "dualfast/scoring/sharded.py",
        'seen["top_other"] = values[:, 3]',
        'seen["top_other"] = values[:, 2]',
        "tests/scoring/test_sharded.py::test_scores_and_selection_are_those_of_one_process[1]",
    ),
    Mutation(
        "dualfast/scoring/scores.py",
        "np.minimum(seen, window - 1)",
        "np.minimum(seen, window)",
        STEP + "test_lines_agree_with_the_reference[10-10-dtype0-cpp]",
    ),
    Mutation(
        "dualfast/selection/audit_exports.py",
        '"label_score": float(found.quality[id_])',
        '"label_score": 1 - float(found.quality[id_])',
        "tests/selection/test_audit_exports.py::test_cleanlab_has_the_columns_of_datalab",
    ),
    Mutation(
        "dualfast/selection/audit_exports.py",
        'if row["decision"] != EXCLUDE)',
        "if True)",
        "tests/selection/test_audit_exports.py::test_decisions_become_corrected_labels_or_an_exclude_list",
    ),
    Mutation(
        "dualfast/selection/audit_exports.py",
        'if row["decision"] not in known:',
        "if False:",
        "tests/selection/test_audit_exports.py::test_decisions_that_cannot_be_applied_say_why",
    ),
    Mutation(
        "dualfast/runs/auditing.py",
        'if not run_dir.scored_seeds() or run_dir.records("audited"):',
        "if not run_dir.scored_seeds():",
        "tests/runs/test_auditing.py::test_wrong_labels_of_the_digits_come_first",
    ),
    Mutation(
        "dualfast/report/page.py",
        "audit.suspects[:GALLERY_SIZE]",
        "audit.ranking[:GALLERY_SIZE]",
        "tests/report/test_page.py::test_labels_that_look_wrong_are_shown_with_what_they_look_like",
    ),
    Mutation(
        "dualfast/report/explorer.py",
        "ids, spec = kept.get(ratio), specs.get(ratio)",
        "ids, spec = None, specs.get(ratio)",
        "tests/report/test_explorer.py::test_at_the_ratios_of_the_run_its_own_lists_are_shown",
    ),
    Mutation(
        "dualfast/report/explorer.py",
        "mask[points], bitorder",
        "mask[: len(points)], bitorder",
        "tests/report/test_explorer.py::test_scores_names_and_labels_are_those_of_the_samples",
    ),
    Mutation(
        "dualfast/report/explorer.py",
        "names = [visible(name[-NAME_LENGTH:])",
        "names = [str(name[-NAME_LENGTH:])",
        "tests/report/test_explorer.py::test_hostile_names_stay_text",
    ),
    Mutation(
        "dualfast/report/page.py",
        "finalize=lambda value: visible(value) if type(value) is str else value,",
        "",
        "tests/report/test_explorer.py::test_hostile_names_stay_text",
    ),
    Mutation(
        "dualfast/selection/audit.py",
        "np.minimum(usual, SURE)[top_other]",
        "usual[top_other]",
        "tests/selection/test_audit.py::test_an_audit_in_closed_form",
    ),
    Mutation(
        "dualfast/selection/audit.py",
        '"aum" if _lacks(scores, "late_margin") else "late_margin"',
        '"aum"',
        "tests/selection/test_audit.py::test_an_audit_in_closed_form",
    ),
    Mutation(
        "dualfast/selection/audit.py",
        "np.where(margin < 0, other, 0.0)",
        "other",
        "tests/selection/test_audit.py::test_an_audit_in_closed_form",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        "min(found.n_wrong, most)",
        "found.n_wrong",
        "tests/selection/test_select.py::test_a_cut_can_be_what_the_audit_finds",
    ),
    Mutation(
        "dualfast/selection/audit.py",
        "if (same := top_other == labels).any():",
        "if (same := top_other == labels).all():",
        "tests/selection/test_audit.py::test_bad_input_is_named",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        "{**unsaid, **options}",
        "options",
        "tests/selection/test_spec.py::test_ccs_of_0_1_covered_aum",
    ),
    Mutation(
        "dualfast/runs/classes.py",
        "numbers[label] = known[own[label]]",
        "numbers[label] = label",
        "tests/runs/test_classes.py::test_classes_are_matched_by_name",
    ),
    Mutation(
        "dualfast/runs/datasets.py",
        "labels = test.labels if matched.numbers is None else matched.numbers[test.labels]",
        "labels = test.labels",
        "tests/runs/test_datasets.py::test_test_classes_that_are_fewer_are_numbered_as_the_training_classes",
    ),
    Mutation(
        "dualfast/runs/session.py",
        "self._test_loader.numbers = match(train, test, str(test.path)).numbers",
        "self._test_loader.numbers = None",
        "tests/runs/test_datasets.py::test_a_beton_of_fewer_classes_tests_the_same",
    ),
    Mutation(
        "dualfast/runs/datasets.py",
        "            run_dir.withdraw()\n",
        "",
        "tests/runs/test_datasets.py::test_what_cannot_fit_together_is_said_before_anything_is_written",
    ),
    Mutation(
        "dualfast/runs/images.py",
        "(batch[0], batch[1]) if label == 1 else (batch[1], batch[0])",
        "(batch[0], batch[1])",
        "tests/runs/test_images.py::test_the_order_of_the_fields_does_not_matter",
    ),
    Mutation(
        "dualfast/data/beton/tables.py",
        "[name for name in found if name != ORIGINAL_INDEX] or found",
        "found",
        "tests/data/beton/test_fields.py::test_the_ids_that_compact_adds_are_no_labels",
    ),
    Mutation(
        "dualfast/data/beton/space.py",
        "if source.one_file_each else np.ones(n, np.int64)",
        "if False else np.ones(n, np.int64)",
        "tests/data/beton/test_space.py::test_files_of_other_sizes_than_the_first_count_as_they_are",
    ),
    Mutation(
        "dualfast/training/trial_batch.py",
        "for training in (True, False):",
        "for training in (True,):",
        "tests/training/test_trial_batch.py::test_a_model_that_cannot_is_named_with_the_reason",
    ),
    Mutation(
        "dualfast/training/models.py",
        "    model.eval()\n",
        "",
        "tests/training/test_models.py::test_lazy_layers_get_their_sizes_and_nothing_else",
    ),
    Mutation(
        "dualfast/data/beton/target.py",
        "found.class_names != source.class_names",
        "False",
        "tests/data/beton/test_target.py::test_another_split_or_column_of_the_same_file_is_refused",
    ),
    Mutation(
        "dualfast/data/beton/target.py",
        'found.sidecar["content"] != content_of(source)',
        "False",
        "tests/data/beton/test_target.py::test_other_arrays_are_refused",
    ),
    Mutation(
        "dualfast/data/beton/target.py",
        "or _other_options(found.sidecar, options)",
        "or None",
        "tests/data/beton/test_target.py::test_other_options_are_refused",
    ),
    Mutation(
        "dualfast/data/beton/target.py",
        "before and splits[0] != splits[1]",
        "False",
        "tests/data/beton/test_target.py::test_another_split_or_column_of_the_same_file_is_refused",
    ),
    Mutation(
        "dualfast/data/beton/compact.py",
        '("inventory", "notes", "content", "options", "made_from")',
        '("inventory", "notes")',
        "tests/data/beton/test_target.py::test_a_compacted_file_is_not_the_whole",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        'name.endswith(".beton.names.parquet") or',
        "",
        "tests/runs/test_parts.py::test_the_names_beside_a_beton_are_no_shard",
    ),
    Mutation(
        "dualfast/data/sources/hugging_face.py",
        "module.HF_HUB_OFFLINE = True",
        "pass",
        "tests/data/sources/test_hugging_face.py::test_without_the_hub_its_cache_is_looked_into_at_once",
    ),
    Mutation(
        "dualfast/data/sources/remote.py",
        "answer.result(CONTACT_SECONDS)",
        "answer.result(25)",
        "tests/runs/test_parts.py::test_a_server_that_says_nothing_is_given_up",
    ),
    Mutation(
        "dualfast/data/sources/file_list.py",
        "class_names = _names_beside(numbers, table, column, scan.paths)",
        "class_names = None",
        "tests/runs/test_originals.py::test_a_csv_is_read_back_with_the_same_classes",
    ),
    Mutation(
        "dualfast/data/sources/file_list.py",
        "(each_once or are_paths)",
        "(False or are_paths)",
        "tests/data/sources/test_file_list.py::test_a_list_of_names_alone_is_none_of_labels",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        "if files is not None and any(_pattern(",
        "if False and any(_pattern(",
        "tests/data/sources/test_file_list.py::test_a_first_file_that_is_missing_is_no_header",
    ),
    Mutation(
        "dualfast/data/sources/parquet.py",
        "if by_column.rows is None and split is None:",
        "if split is None:",
        "tests/data/sources/test_parquet.py::test_a_column_tells_the_split",
    ),
    Mutation(
        "dualfast/data/sources/labels.py",
        "_check_single(values, words.describe)",
        "pass",
        "tests/data/sources/test_parquet.py::test_several_classes_in_a_text_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/archive.py",
        "inner=() if below_letters else tuple(inner),",
        "inner=(),",
        "tests/data/sources/test_archive.py::test_folders_in_class_folders_and_loose_images_are_said",
    ),
    Mutation(
        "dualfast/training/models.py",
        "if model in _BUILT:",
        "if False:",
        "tests/training/test_models.py::test_a_factory_that_returns_the_same_network_again",
    ),
    Mutation(
        "dualfast/training/trial_batch.py",
        "count = BATCH if n_classes != BATCH else OTHER_BATCH",
        "count = BATCH",
        "tests/training/test_trial_batch.py::test_logits_of_two_classes_that_lie_the_wrong_way_round",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        "if not words and len(others) > BOX_COLUMNS:",
        "if not words:",
        "tests/data/sources/test_file_list.py::test_more_columns",
    ),
    Mutation(
        "dualfast/data/sources/listed.py",
        "self.taken_for_root.add(above[0])",
        "pass",
        "tests/data/sources/test_file_list.py::test_paths_of_another_folder_are_said",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        "return holding or (every if len(every) == len(classes) else [])",
        "return holding",
        "tests/data/sources/test_folder.py::test_flat_folders_that_are_called_like_splits_are_no_classes",
    ),
    Mutation(
        "dualfast/selection/spec.py",
        'arguments["per_class"] = "shares"',
        "pass",
        "tests/selection/test_spec.py::test_a_list_of_version_0_1_is_drawn_again",
    ),
    Mutation(
        "dualfast/scoring/trajectories.py",
        "if before is not None and name not in _FAILED:",
        "if before is not None:",
        "tests/scoring/test_trajectories.py::test_a_function_that_fails_can_be_replaced",
    ),
    Mutation(
        "dualfast/scoring/trajectories.py",
        "TrajectoryScore(name, keep, function, len(required) == 2, caller)",
        "TrajectoryScore(name, keep, function, len(required) == 2, function.__module__)",
        "tests/scoring/test_trajectories.py::test_a_module_whose_scores_are_registered_already",
    ),
    Mutation(
        "dualfast/data/sources/paths.py",
        "if images and masks and len(images) + len(masks) == len(names):",
        "if False:",
        "tests/data/sources/test_folder.py::test_other_folders_that_are_no_classes",
    ),
    Mutation(
        "dualfast/data/sources/label_table.py",
        "rows[0].insert(0, FILE)",
        "pass",
        "tests/data/sources/test_file_list.py::test_a_header_without_a_word_for_the_files",
    ),
    Mutation(
        "dualfast/runs/parts.py",
        "has_labels=reading.labels is not None",
        "has_labels=False",
        "tests/runs/test_datasets.py::test_a_label_column_is_that_of_test_labels_too",
    ),
    Mutation(
        "dualfast/data/sources/file_list.py",
        "n < (FEW_ROWS if image and table.names is None else MANY_ROWS)",
        "n < FEW_ROWS or not image",
        "tests/data/sources/test_file_list.py::test_numbers_of_lines_behind_the_files_are_no_labels",
    ),
    Mutation(
        "dualfast/data/inventory.py",
        "differs[is_old] |= (ends[0] != ends[1]) & (ends[0] != NOT_READ) & (ends[1] != NOT_READ)",
        "pass",
        "tests/data/test_inventory.py::test_contents_that_change_within_one_size_and_time_are_noticed",
    ),
    Mutation(
        "dualfast/data/sources/file_list.py",
        "for first in (0, 1)):",
        "for first in (0,)):",
        "tests/data/sources/test_file_list.py::test_tables_that_are_refused",
    ),
    Mutation(
        "dualfast/data/sources/splits.py",
        "if (twice := _first_twice(source)) is not None:",
        "if (twice := None) is not None:",
        "tests/runs/test_datasets.py::test_images_that_are_given_twice_are_not_held_out",
    ),
    Mutation(
        "dualfast/data/sources/webdataset.py",
        "if is_image and self._wanted.image in (None, extension):",
        "if is_image:",
        "tests/data/sources/test_webdataset.py::test_one_of_several_images_of_a_sample_is_chosen",
    ),
    Mutation(
        "dualfast/runs/parts.py",
        'label_column=reading.label_column if "label_column" in taken else',
        "label_column=reading.label_column if True else",
        "tests/runs/test_datasets.py::test_test_images_in_folders_have_no_columns",
    ),
    Mutation(
        "dualfast/runs/session.py",
        "if is_new:",
        "if False:",
        "tests/runs/test_datasets.py::test_a_refused_run_leaves_no_directory",
    ),
    Mutation(
        "dualfast/runs/parts.py",
        "_known(now, before) if",
        "now if",
        "tests/runs/test_parts.py::test_a_held_out_part_is_compared_with_its_own_files",
    ),
    Mutation(
        "dualfast/runs/parts.py",
        "        if not (parts.unreachable and _has_url(source))\n",
        "        if not parts.unreachable\n",
        "tests/runs/test_parts.py::test_what_is_here_is_compared_while_the_rest_cannot_be",
    ),
    Mutation(
        "dualfast/runs/session.py",
        "            check_outside(config.data, config.test, out)\n",
        "",
        "tests/runs/test_parts.py::test_a_run_directory_in_its_data_is_refused",
    ),
    Mutation(
        "dualfast/runs/datasets.py",
        "warn_of_notes(part.sidecar, text_of(paths[path]))",
        "pass",
        "tests/runs/test_parts.py::test_a_resumed_run_says_what_was_left_out",
    ),
    Mutation(
        "dualfast/runs/originals.py",
        "changes(self.beton.made_of, source.inventory.files) is None and places is not None",
        "places is not None",
        "tests/runs/test_originals.py::test_a_table_that_changed_is_never_taken",
    ),
    Mutation(
        "dualfast/runs/originals.py",
        "yield table.take(places[begin:end] - first)",
        "yield table.slice(0, end - begin)",
        "tests/runs/test_originals.py::test_other_columns_of_a_table_are_kept",
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
