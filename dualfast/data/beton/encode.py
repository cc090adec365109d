"""From what a source yields to what a .beton stores."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualfast.data.beton.format import JPEG, RAW
from dualfast.data.images import WHITE, Colour, Payload, decode_with_kinds, open_image

RAW_MAX_SIDE = 64  # px; mode "auto" stores images up to this size raw
FORMAT_MAX_SIDE = 0xFFFF


class Encoded(NamedTuple):
    """kinds: of change that the image needed, see images.decode_with_kinds."""

    mode: int
    width: int
    height: int
    data: bytes
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoder:
    """See write() for the meaning of the options."""

    mode: Literal["auto", "jpeg", "raw"]
    max_size: int | None
    quality: int
    background: Colour = WHITE

    def __call__(self, payload: Payload | Exception) -> Encoded | Exception:
        """The encoded image, or the exception that reading or decoding it raised."""
        if isinstance(payload, Exception):
            return payload
        try:
            if isinstance(payload, np.ndarray) and payload.shape[2] < 4 and self._is_stored_raw(*payload.shape[:2]):
                return _pixels(payload)
            return self._unchanged(payload) or self._encode(payload)
        except Exception as error:  # whatever Pillow raises, for write() to name the image
            return error

    def _unchanged(self, payload: Payload) -> Encoded | None:
        """A JPEG's own bytes when no option asks for a change; else None."""
        if self.mode == "raw" or not isinstance(payload, bytes) or payload[:2] != b"\xff\xd8":
            return None
        from PIL import ExifTags

        with open_image(payload, max_size=self.max_size) as image:
            width, height = image.size
            longest = max(width, height)
            if (
                image.format != "JPEG"
                or image.mode not in ("RGB", "L")
                or (self.mode == "auto" and longest <= RAW_MAX_SIDE)
                or (self.max_size is not None and longest > self.max_size)
                or image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            ):
                return None
            image.draft(image.mode, (1, 1))  # decodes at an eighth of its size: reads all bytes for little work
            image.load()
        return Encoded(JPEG, width, height, payload)

    def _is_stored_raw(self, height: int, width: int) -> bool:
        """Whether pixels of this size are stored as they are."""
        longest = max(width, height)
        limit = RAW_MAX_SIDE if self.mode == "auto" else FORMAT_MAX_SIDE if self.mode == "raw" else 0
        return longest <= limit and (self.max_size is None or longest <= self.max_size)

    def _encode(self, payload: Payload) -> Encoded:
        image, kinds = decode_with_kinds(payload, max_size=self.max_size, background=self.background)
        width, height = image.size
        if max(width, height) > FORMAT_MAX_SIDE:
            raise ValueError(f"{width} x {height} px is more than the format holds; pass max_size")
        if self.mode == "raw" or (self.mode == "auto" and max(width, height) <= RAW_MAX_SIDE):
            return Encoded(RAW, width, height, image.tobytes(), kinds)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=self.quality)
        return Encoded(JPEG, width, height, out.getvalue(), kinds)


def _pixels(image: NDArray[np.uint8]) -> Encoded:
    """The pixels (H, W, 1 or 3) themselves, without the detour of an image of Pillow's."""
    height, width, channels = image.shape
    return Encoded(RAW, width, height, (image if channels == 3 else np.repeat(image, 3, axis=2)).tobytes())
