"""The layout of a line: its header for C++ is the declaration's, and its parts fit."""

from __future__ import annotations

import numpy as np
import torch

from dualfast import config
from dualfast.ops import header, layout


def test_the_header_is_made_from_the_declaration() -> None:
    assert header.PATH.read_text() == header.header(), "run python -m dualfast.ops.header and build again"


def test_the_bit_fields_fill_a_word_without_overlap() -> None:
    fields = [getattr(layout, name) for name in layout.BIT_FIELDS]
    assert sum(field.at(field.max) for field in fields) == 2**32 - 1
    assert np.bitwise_or.reduce([field.at(field.max) for field in fields]) == 2**32 - 1


def test_fields_are_read_from_signed_words_too() -> None:
    packed = sum(field.at(field.max) for field in (layout.SKIPPED, layout.VISITS))
    for words in (np.array([packed], np.uint32), torch.tensor([packed - 2**32], dtype=torch.int32)):
        assert layout.SKIPPED.of(words) == layout.SKIPPED.max
        assert layout.VISITS.of(words) == config.MAX_VISITS
        assert layout.FORGOTTEN.of(words) == 0


def test_every_word_of_tail_and_status_has_its_own_place() -> None:
    for names in (layout.TAIL, layout.STATUS):
        assert [getattr(layout, name) for name in names] == list(range(len(names)))
    assert [getattr(layout, name) for name in layout.FLAGS] == [1 << bit for bit in range(len(layout.FLAGS))]
    assert [layout.line_words(window) for window in (2, 10, 11, 26, 27)] == [16, 16, 32, 32, 48]
