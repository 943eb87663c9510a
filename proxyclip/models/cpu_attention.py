"""Attention in bfloat16 on a CPU, where torch's fused kernel is slower than plain matrix products."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Attention weights held at once: those of two or three heads of a window of 42 x 42 patches stay in the cache.
WEIGHTS_AT_ONCE = 2**23


class CpuAttention(TorchFunctionMode):
    """While it is entered, networks that ask torch for attention in bfloat16 on a CPU get `attend`."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention and _is_plain(args, kwargs or {}):
            return attend(*args[:3])
        return function(*args, **(kwargs or {}))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt d) v, a few heads at a time. q, k, v: (B, heads, N, d). Returns (B, heads, N, d)."""
    heads = q.shape[0] * q.shape[1]
    # Products of views of one another's rows would copy them for every head.
    q, k, v_ = (part.reshape(heads, *part.shape[2:]).contiguous() for part in (q * q.shape[-1] ** -0.5, k, v))
    mixed = torch.empty_like(q)
    step = max(WEIGHTS_AT_ONCE // (q.shape[1] * k.shape[1]), 1)
    for first in range(0, heads, step):
        some = slice(first, first + step)
        weights = torch.bmm(q[some], k[some].transpose(1, 2)).softmax(dim=-1)
        torch.bmm(weights, v_[some], out=mixed[some])
    return mixed.view_as(v)


def _is_plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call has no mask, no dropout and nothing else, and is of the kind that is slow."""
    q = args[0] if args else None
    masked = kwargs.get("attn_mask") is not None or kwargs.get("is_causal") or kwargs.get("dropout_p")
    plain = len(args) == 3 and not masked and kwargs.get("scale") is None and not kwargs.get("enable_gqa")
    return plain and isinstance(q, Tensor) and q.device.type == "cpu" and q.dtype == torch.bfloat16
