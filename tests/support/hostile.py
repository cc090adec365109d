"""Files that cost more to read than they look: for tests of limits, and as first inputs of the fuzzers."""

from __future__ import annotations

import struct


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def progressive_jpeg(side: int, scans: int, between: bytes = b"") -> bytes:
    """A gray progressive JPEG of side x side px: a scan of DC coefficients, then `scans` empty ones, each a pass over
    all blocks for some bytes. between: what stands before each of them."""
    blocks = ((side + 7) // 8) ** 2
    out = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64))
    out += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    out += segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0")  # the code 0: no difference of DC
    out += segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")  # the code 0: 2^14 or more blocks are empty
    out += segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(-(-blocks // 8))
    runs, left = "", blocks
    while left > 0:
        run = min(max(left, 1 << 14), (1 << 15) - 1)
        runs += "0" + format(run - (1 << 14), "014b")
        left -= run
    runs += "1" * (-len(runs) % 8)
    empty = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    for at in range(scans):
        band = 1 + at % 63
        out += between + segment(0xDA, bytes([1, 1, 0, band, band, 0])) + empty
    return out + b"\xff\xd9"


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 80\n%%EndComments\n(/etc/passwd) (r) file pop showpage\n%%EOF\n"
)
