"""The kernels of a device: which functions of torch are replaced, and how exact products are."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from proxyclip.models.kernels.cpu import cpu_kernels
from proxyclip.models.kernels.gpu import Float32Products


def network_kernels(
    device: torch.device, dtype: torch.dtype = torch.float32, int8: nn.Module | None = None
) -> AbstractContextManager[Any]:
    """The context in which networks of `dtype` run on `device`; `int8`: the one whose linear layers run in 8 bits.

    It may be entered again and again. On a CPU it keeps packed weights, so make one per set of networks, and use it
    only for inference: weights that change later stay as they were packed.
    """
    if device.type == "cpu":
        return cpu_kernels(int8)
    return Float32Products(dtype) if device.type == "cuda" else contextlib.nullcontext()
