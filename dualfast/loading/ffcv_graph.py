"""What is used of FFCV, imported without what its import does to the process; nothing else of ours imports it."""

from __future__ import annotations

import torch

from dualfast.errors import MissingPackage


def _import_ffcv() -> None:
    """Imports FFCV without what its import does to the process."""
    import numba
    import numba.typed

    threads, jit_threads, typed_dict = torch.get_num_threads(), numba.get_num_threads(), numba.typed.Dict
    # A two-entry table of constants is a typed Dict there, whose compilation takes five seconds of each start.
    numba.typed.Dict = dict
    try:
        import ffcv.loader  # noqa: F401
    except ImportError as error:
        raise MissingPackage(f"dualfast.Loader needs ffcv ({error}); pip install 'dualfast[ffcv]'") from error
    finally:
        numba.typed.Dict = typed_dict
        torch.set_num_threads(threads)
        numba.set_num_threads(jit_threads)


_import_ffcv()

from ffcv import loader as ffcv_loader  # noqa: E402
from ffcv.fields.basics import IntDecoder  # noqa: E402
from ffcv.fields.rgb_image import SimpleRGBImageDecoder  # noqa: E402
from ffcv.memory_managers import OSCacheManager  # noqa: E402
from ffcv.pipeline import Compiler, PipelineSpec  # noqa: E402
from ffcv.pipeline.allocation_query import AllocationQuery  # noqa: E402
from ffcv.pipeline.graph import DecoderNode, Graph  # noqa: E402
from ffcv.reader import Reader  # noqa: E402
from ffcv.transforms import ToTensor, ToTorchImage, View  # noqa: E402
from ffcv.types import get_handlers  # noqa: E402

__all__ = [
    "AllocationQuery",
    "Compiler",
    "DecoderNode",
    "Graph",
    "IntDecoder",
    "OSCacheManager",
    "PipelineSpec",
    "Reader",
    "SimpleRGBImageDecoder",
    "ToTensor",
    "ToTorchImage",
    "View",
    "ffcv_loader",
    "get_handlers",
]
