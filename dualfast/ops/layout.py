"""The words of a sample's line and of a step's status, declared once.

Everything that reads or writes a line takes its positions from here: the C++ through csrc/line_layout.h, which
`python -m dualfast.ops.header` writes, the Triton kernels, the torch back end and the score table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dualfast.config import MAX_VISITS as MAX_VISITS

# ---- a line: int32 words, the floats as their bits -------------------------------------------------------------------
# words 0 .. J-2   ring of the J-1 previous true-class probabilities; visit k is written to slot k mod (J-1)
# ...              unused
# the tail         the words below, last in the line

LINE_WORDS = 16  # a line is a multiple of 64 bytes long
TAIL = (
    "DUAL_SUM",  # over the windows: standard deviation * (1 - mean)
    "STD_SUM",  # over the windows: standard deviation
    "P_SUM",
    "MARGIN_SUM",  # NaN once a visit left out the by-products
    "EL2N_SUM",  # over the first EL2N_VISITS visits
    "ENTROPY",  # of the last visit
    "COUNTERS",  # packed, see below
)
DUAL_SUM, STD_SUM, P_SUM, MARGIN_SUM, EL2N_SUM, ENTROPY, COUNTERS = range(len(TAIL))
TAIL_WORDS = len(TAIL)
EL2N_VISITS = 10


class BitField(NamedTuple):
    """Some bits of the packed counters: `max` is the largest value they hold."""

    shift: int
    max: int

    def of(self, packed: Any) -> Any:
        """The value in packed, an integer or an integer array."""
        return (packed >> self.shift) & self.max

    def at(self, value: Any) -> Any:
        """value in its place, to be combined with |."""
        return value << self.shift


VISITS = BitField(0, MAX_VISITS)
FORGOTTEN = BitField(12, 0xFFF)  # how often the prediction went from correct to wrong
LAST_CORRECT = BitField(24, 1)
EVER_CORRECT = BitField(25, 1)
SKIPPED = BitField(26, 0x3F)  # visits left out because the logits were not finite
BIT_FIELDS = ("VISITS", "FORGOTTEN", "LAST_CORRECT", "EVER_CORRECT", "SKIPPED")

# ---- beside the lines: a word per sample and score, which a table keeps if it is told to -----------------------------

BESIDE = {
    "loss_sums": "loss",
    "prob_margin_sums": "aum_prob",
    "late_margin_sums": "late_margin",  # of k^2 times the margin of the k-th visit
    "votes": "top_other",  # int32, the others float32
}
"""The score that comes of each; the flag that asks for it is track_<score>."""

# ---- a vote: one int32 word per sample, in which the visits elect a class --------------------------------------------

VOTE_COUNT = BitField(0, MAX_VISITS)
VOTE_CLASS = BitField(12, 0xFFFFF)
VOTE_FIELDS = ("VOTE_COUNT", "VOTE_CLASS")


def line_words(window: int) -> int:
    """Words of a line for a window of J visits."""
    return -(-(window - 1 + TAIL_WORDS) // LINE_WORDS) * LINE_WORDS


# ---- the status of a step: int32 words -------------------------------------------------------------------------------

STATUS = (
    "BAD_INDEX",  # rows whose index is out of range
    "BAD_TARGET",
    "DUPLICATES",  # rows whose sample came earlier in the batch
    "NON_FINITE",  # visits skipped because the logits were not finite
    "PAUSED",  # 1: nothing is recorded
    "FINISHED",  # GPU programs that have finished; 0 between launches
)
BAD_INDEX, BAD_TARGET, DUPLICATES, NON_FINITE, PAUSED, FINISHED = range(len(STATUS))

# ---- observations: what a step saw, a column per row of the batch ----------------------------------------------------

OBSERVED = ("P", "MARGIN", "EL2N", "ENTROPY")  # rows of Observations.values
SEEN_P, SEEN_MARGIN, SEEN_EL2N, SEEN_ENTROPY = range(len(OBSERVED))
FLAGS = (
    "COUNTED",  # a visit: neither ignored nor with a bad target, nor, where lines are written, a duplicate
    "CORRECT",  # the true class has the largest logit
    "FOLDED",  # the visit was folded into its line
    "WRONG_TARGET",  # the target is out of range (on GPUs; elsewhere the step raises)
)
COUNTED, CORRECT, FOLDED, WRONG_TARGET = (1 << bit for bit in range(len(FLAGS)))
