"""The batches of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.data.beton import Beton
from dualfast.loading.loader import Loader


class ImageLoader(Loader):
    """A Loader of the image and label fields of `data` whose batches are (images, labels, index), whatever the order of
    the fields in the file.

    numbers: replaces each label by the number in its place; None to leave all as they are. Padding stays."""

    def __init__(self, data: Beton, batch_size: int, **options: Any) -> None:
        assert data.image_field is not None
        assert data.label_field is not None
        options["image_column"] = data.field_names[data.image_field]
        options["label_column"] = data.field_names[data.label_field]
        super().__init__(data.path, batch_size, **options)
        self.numbers: NDArray[np.int64] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        label = self._label_output
        numbers = None if self.numbers is None else torch.from_numpy(self.numbers)
        for batch in super().__iter__():
            images, labels = (batch[0], batch[1]) if label == 1 else (batch[1], batch[0])
            if numbers is not None:
                labels = torch.where(labels < 0, labels, numbers[labels.clamp(min=0)])
            yield images, labels, batch[2]
