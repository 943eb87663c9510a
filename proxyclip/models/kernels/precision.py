"""Which precision is fast on this CPU?"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn

from proxyclip.config import Dtype
from proxyclip.models.kernels.cpu import cpu_kernels

logger = logging.getLogger(__name__)

# Of the layer that is timed: rows, and widths as in a ViT-B. Some milliseconds in float32.
_ROWS, _WIDTH, _HIDDEN = 512, 768, 3072

_ROUNDS = 5


def cpu_dtype(asked: Dtype, *, force: bool) -> Dtype:
    """The precision that networks on this CPU get if `asked` is asked for: float32 if that is faster.

    Processors without instructions for bfloat16 or float16 emulate them, several times slower than float32. This is
    measured, because no list of processors' features is complete. force: take what is asked for all the same.
    """
    if asked == "float32" or force:
        return asked
    speed = speed_of(asked)
    if speed >= 1:
        return asked
    logger.warning(
        "%s is %.1f times slower than float32 on this processor (measured on one layer), which has no fast "
        "instructions for it. The run continues in float32, and its record says so; --force-dtype takes %s anyway.",
        asked,
        1 / speed,
        asked,
    )
    return "float32"


@lru_cache
def speed_of(dtype: Dtype) -> float:
    """How many times faster than in float32 a linear layer is in `dtype` on this CPU, with the package's kernels."""
    best = {"float32": float("inf"), dtype: float("inf")}
    works = {name: _layer(name) for name in best}
    with torch.inference_mode():
        for number in range(_ROUNDS + 1):  # by turns, because other processes come and go
            for name, work in works.items():
                started = time.perf_counter()
                work()
                if number:  # the first packs the weights
                    best[name] = min(best[name], time.perf_counter() - started)
    return best["float32"] / best[dtype]


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """The type of the networks' tensors. int8 is inside the linear layers only."""
    found: torch.dtype = torch.float32 if dtype == "int8" else getattr(torch, dtype)
    return found


def _layer(dtype: Dtype) -> Callable[[], object]:
    layer = nn.Linear(_WIDTH, _HIDDEN).requires_grad_(False).to(torch_dtype(dtype))
    kernels = cpu_kernels(layer if dtype == "int8" else None)
    input = torch.ones(_ROWS, _WIDTH, dtype=torch_dtype(dtype))

    def work() -> None:
        with kernels:
            layer(input)

    return work
