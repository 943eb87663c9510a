"""Faster linear layers, attention and matrix products on a CPU, for inference.

torch packs the weights of a bfloat16 linear layer at every call, and sends float32 layers to MKL, which is slow on
some processors. Here oneDNN does both, with weights packed once. torch's fused bfloat16 attention is slower than plain
products of a few heads at a time, which fit the cache. Figures are in BENCHMARKS.md.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyclip.models.kernels.int8 import Int8Linear
from proxyclip.models.kernels.torch_calls import TorchCalls

# Attention weights held at once: those of two heads of a window of 42 x 42 patches.
WEIGHTS_AT_ONCE = 2**23

# If no logit can exceed this, softmax needs no maximum: neither weights nor sums leave the range of bfloat16.
_SAFE_EXPONENT = 60.0

# With fewer rows, packing does not pay.
_FEW_ROWS = 64

# From malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_MATMULS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


def cpu_kernels(int8: nn.Module | None = None) -> TorchCalls:
    """The context in which networks on a CPU run with the functions of this file (see `of_device`).

    int8: the network whose linear layers run in 8 bits.
    """
    keep_memory()
    linear: Callable[..., Tensor] = PackedLinear()
    if int8 is not None:
        linear = Int8Linear(int8, otherwise=linear)
    matmuls = {function: partial(_matmul, function) for function in _MATMULS}
    return TorchCalls({F.linear: linear, F.scaled_dot_product_attention: _attention, **matmuls})


class PackedLinear:
    """`F.linear` with weights that are packed at their first use, and kept."""

    def __init__(self) -> None:
        self.packed: dict[int, tuple[Tensor, Tensor]] = {}  # by id; the weight is kept so that its id stays its own

    def __call__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not _is_plain_linear(input, weight):
            return F.linear(input, weight, bias)
        packed = self.packed.get(id(weight))
        if packed is None:
            rows = input.numel() // input.shape[-1]
            packed = weight, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
            self.packed[id(weight)] = packed
        result: Tensor = torch.ops.mkldnn._linear_pointwise(input, packed[1], bias, "none", [], "")
        return result


def _attention(query: Tensor, key: Tensor, value: Tensor, *options: Any, **more: Any) -> Tensor:
    if _is_plain_attention(query, *options, **more):
        return attend(query, key, value)
    return F.scaled_dot_product_attention(query, key, value, *options, **more)


def _matmul(original: Any, *args: Any, **kwargs: Any) -> Any:
    if not kwargs and _is_plain_matmul(*args):
        return matmul(*args)
    return original(*args, **kwargs)


def keep_memory() -> None:
    """Make the C library keep up to 256 MiB of freed memory for the next tensors.

    By default glibc returns the memory of every large tensor to the system, and new pages cost more time than the
    computation on them.
    """
    with contextlib.suppress(OSError, AttributeError):  # only glibc has mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 2**25)
        mallopt(_M_TRIM_THRESHOLD, 2**28)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt d) v, a few heads at a time. q, k, v: (B, heads, N, d). Returns (B, heads, N, d)."""
    heads = q.shape[0] * q.shape[1]
    # bmm would copy views for every head.
    q, k, v_ = (part.reshape(heads, *part.shape[2:]).contiguous() for part in (q * q.shape[-1] ** -0.5, k, v))
    longest = [float((part * part).sum(dim=-1).amax()) ** 0.5 for part in (q, k)]
    bounded = longest[0] * longest[1] < _SAFE_EXPONENT
    mixed = torch.empty_like(q)
    step = min(max(WEIGHTS_AT_ONCE // (q.shape[1] * k.shape[1]), 1), heads)
    weights = q.new_empty(step, q.shape[1], k.shape[1])  # allocated once: a new one per step costs page faults
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
    """(B, N, K) by (B, K, M) or (K, M): (B, N, M) float32, one oneDNN product per item of the batch."""
    b = b.expand(len(a), *b.shape[-2:])
    product = torch.ops.mkldnn._linear_pointwise
    return torch.stack([product(x, y.T.contiguous(), None, "none", [], "") for x, y in zip(a, b, strict=True)])


def _is_plain_attention(
    query: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    """Whether a call is plain (no mask, dropout or other option) and of the kind that torch computes slowly."""
    plain = attn_mask is None and not dropout_p and not is_causal and scale is None and not enable_gqa
    return plain and query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.ndim == 4


def _is_plain_linear(input: Any, weight: Any) -> bool:
    """Whether a layer belongs to a network on the CPU, and packing pays."""
    return (
        isinstance(weight, torch.nn.Parameter)
        and weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and input.dtype == weight.dtype
        and input.numel() >= _FEW_ROWS * input.shape[-1]
        and _onednn_pays()
        and (input.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and not torch.is_grad_enabled()
    )


def _is_plain_matmul(a: Any, b: Any) -> bool:
    """Whether a product is of large float32 matrices on the CPU."""
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and a.ndim == 3
        and (b.ndim == 2 or (b.ndim == 3 and a.shape[0] == b.shape[0]))
        and min(a.shape[1:] + b.shape[-2:]) >= _FEW_ROWS
        and a.device.type == "cpu"
        and a.dtype == b.dtype == torch.float32
        and _onednn_pays()
        and not torch.is_grad_enabled()
    )


@cache
def _onednn_pays() -> bool:
    """Whether oneDNN has kernels for this processor's vectors: without AVX2 it takes twice as long as torch."""
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
