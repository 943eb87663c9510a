"""Faster products on a CPU than torch takes by itself, for networks that are only run.

Linear layers: oneDNN with weights packed once. By itself torch packs them anew for every bfloat16 product, and gives
float32 ones to MKL, which does not know every processor. Attention in bfloat16: plain products of a few heads at a
time, which fit the cache, where the fused kernel is slower. Figures are in BENCHMARKS.md.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Attention weights held at once: those of two heads of a window of 42 x 42 patches.
WEIGHTS_AT_ONCE = 2**23

# Where no logit can be larger, a softmax needs no maximum: neither sums nor weights leave the range of bfloat16.
_SAFE_EXPONENT = 60.0

# Rows below which packing does not pay.
_FEW_ROWS = 64

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_MATMULS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


class CpuKernels(TorchFunctionMode):
    """While it is entered, networks on a CPU that ask torch for a linear layer or for attention get these.

    Weights are packed when they are first met, and kept, so one object belongs to one set of networks, in inference.
    """

    def __init__(self) -> None:
        super().__init__()
        _keep_memory()
        self._packed: dict[int, tuple[Tensor, Tensor]] = {}  # by id; the weight is kept, so that its id is too

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention and _is_plain_attention(*args, **kwargs):
            return attend(*args[:3])
        if function is F.linear and _is_plain_linear(*args, **kwargs):
            return self._linear(*args, **kwargs)
        if function in _MATMULS and _is_plain_matmul(*args):
            return matmul(*args)
        return function(*args, **kwargs)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        packed = self._packed.get(id(weight))
        if packed is None:
            rows = input.numel() // input.shape[-1]
            packed = weight, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
            self._packed[id(weight)] = packed
        result: Tensor = torch.ops.mkldnn._linear_pointwise(input, packed[1], bias, "none", [], "")
        return result


def _keep_memory() -> None:
    """Have the C library keep freed memory for the next tensor, up to 256 MiB.

    By itself glibc gives the memory of every larger tensor back, and new pages cost more than what is computed on them.
    """
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 2**25)
        mallopt(_M_TRIM_THRESHOLD, 2**28)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt d) v, a few heads at a time. q, k, v: (B, heads, N, d). Returns (B, heads, N, d)."""
    heads = q.shape[0] * q.shape[1]
    # Products of views of one another's rows would copy them for every head.
    q, k, v_ = (part.reshape(heads, *part.shape[2:]).contiguous() for part in (q * q.shape[-1] ** -0.5, k, v))
    longest = [float((part * part).sum(dim=-1).amax()) ** 0.5 for part in (q, k)]
    bounded = longest[0] * longest[1] < _SAFE_EXPONENT
    mixed = torch.empty_like(q)
    step = min(max(WEIGHTS_AT_ONCE // (q.shape[1] * k.shape[1]), 1), heads)
    weights = q.new_empty(step, q.shape[1], k.shape[1])  # one for all, since each new one would be given back
    for first in range(0, heads, step):
        some = slice(first, first + step)
        kept = weights[: len(q[some])]
        torch.bmm(q[some], k[some].transpose(1, 2), out=kept)
        if bounded:
            torch.bmm(kept.exp_(), v_[some], out=mixed[some])
            mixed[some] /= kept.sum(dim=-1, keepdim=True)
        else:
            torch.softmax(kept, dim=-1, out=kept)
            torch.bmm(kept, v_[some], out=mixed[some])
    return mixed.view_as(v)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """(B, N, K) by (B, K, M) or (K, M): (B, N, M), float32, each of the batch by oneDNN."""
    b = b.expand(len(a), *b.shape[-2:])
    product = torch.ops.mkldnn._linear_pointwise
    return torch.stack([product(x, y.T.contiguous(), None, "none", [], "") for x, y in zip(a, b, strict=True)])


def _is_plain_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    """Whether a call has no mask, no dropout and nothing else, and is of the kind that is slow."""
    plain = attn_mask is None and not dropout_p and not is_causal and scale is None and not enable_gqa
    return plain and query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.ndim == 4


def _is_plain_linear(input: Any, weight: Any, bias: Any = None) -> bool:
    """Whether a layer is one of a network on the CPU, and worth packing."""
    return (
        isinstance(weight, torch.nn.Parameter)
        and weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and input.dtype == weight.dtype
        and input.numel() >= _FEW_ROWS * input.shape[-1]
        and torch.backends.mkldnn.is_available()
        and not torch.is_grad_enabled()
    )


def _is_plain_matmul(a: Any, b: Any) -> bool:
    """Whether a product is one of large float32 matrices on the CPU."""
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and a.ndim == 3
        and (b.ndim == 2 or (b.ndim == 3 and a.shape[0] == b.shape[0]))
        and min(a.shape[1:] + b.shape[-2:]) >= _FEW_ROWS
        and a.device.type == "cpu"
        and a.dtype == b.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.is_grad_enabled()
    )
