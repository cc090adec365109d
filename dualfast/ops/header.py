"""Writes csrc/line_layout.h from dualfast/ops/layout.py: python -m dualfast.ops.header"""

from __future__ import annotations

from pathlib import Path

from dualfast.ops import layout

PATH = Path(__file__).resolve().parents[2] / "csrc" / "line_layout.h"

TEMPLATE = """\
// Written by `python -m dualfast.ops.header` from dualfast/ops/layout.py, which explains the words. Do not edit.
#pragma once

#include <cstdint>

namespace dualfast {{

struct BitField {{
    int shift;
    uint32_t max;
    constexpr uint32_t of(uint32_t packed) const {{ return packed >> shift & max; }}
    constexpr uint32_t at(uint32_t value) const {{ return value << shift; }}
}};

{lines}

}}  // namespace dualfast
"""


def camel(name: str) -> str:
    """DUAL_SUM -> DualSum."""
    return "".join(part.capitalize() for part in name.split("_"))


def header() -> str:
    """The text of csrc/line_layout.h."""
    lines = ["// Words of a line: how many, and places in its last kTailWords."]
    lines += [f"constexpr int k{camel(name)} = {getattr(layout, name)};" for name in ("LINE_WORDS", "TAIL_WORDS")]
    lines += [f"constexpr int k{camel(name)} = {getattr(layout, name)};" for name in layout.TAIL]
    lines += [f"constexpr int kEl2nVisits = {layout.EL2N_VISITS};", "", "// Bits of the counters."]
    for name in layout.BIT_FIELDS:
        shift, most = getattr(layout, name)
        lines.append(f"constexpr BitField k{camel(name)}{{{shift}, 0x{most:X}}};")
    lines += ["", "// Bits of a vote."]
    for name in layout.VOTE_FIELDS:
        shift, most = getattr(layout, name)
        lines.append(f"constexpr BitField k{camel(name)}{{{shift}, 0x{most:X}}};")
    lines += ["", "// Words of the status."]
    lines += [f"constexpr int kStatus{camel(name)} = {getattr(layout, name)};" for name in layout.STATUS]
    lines += [f"constexpr int kStatusWords = {len(layout.STATUS)};", "", "// Rows of the observed values."]
    lines += [f"constexpr int kSeen{camel(name)} = {getattr(layout, f'SEEN_{name}')};" for name in layout.OBSERVED]
    lines += ["", "// Flags of an observation."]
    lines += [f"constexpr uint8_t kFlag{camel(name)} = {getattr(layout, name)};" for name in layout.FLAGS]
    return TEMPLATE.format(lines="\n".join(lines))


if __name__ == "__main__":
    PATH.write_text(header())
