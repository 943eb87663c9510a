"""Winner, confidence and margin of every pixel in one pass over its logits, as a Triton kernel for CUDA devices.

The functions of torch in `decode` read the logits six times. With 847 queries that is most of decoding.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for other devices comes without it
    triton = None

# Columns of a row that a program holds at once.
_WIDEST = 4096

# Numbers that a program holds at once.
_HELD = 4096


def can_fuse(logits: Tensor) -> bool:
    """Whether `top_two` takes these logits (..., Q)."""
    return triton is not None and logits.is_cuda and logits.shape[-1] <= _WIDEST


def top_two(by_class: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best class of every pixel: its logit, its index (of equal ones the first), its probability and its lead.

    by_class: (..., K) float32. logits: (..., Q), whose softmax gives the probabilities; `by_class` itself if every
    class has one query. Returns four tensors (..., 1); the lead is over the second class, as a probability.
    """
    by_class, logits = by_class.contiguous(), logits.contiguous()
    shape, device = (*by_class.shape[:-1], 1), by_class.device
    best, confidence, margin = (torch.empty(shape, device=device) for _ in range(3))
    index = torch.empty(shape, dtype=torch.int32, device=device)
    num_rows, widest = best.numel(), triton.next_power_of_2(logits.shape[-1])
    rows = max(_HELD // widest, 1)
    _top_two[(triton.cdiv(num_rows, rows),)](
        by_class,
        logits,
        best,
        index,
        confidence,
        margin,
        num_rows,
        by_class.shape[-1],
        logits.shape[-1],
        ROWS=rows,
        CLASSES=triton.next_power_of_2(by_class.shape[-1]),
        QUERIES=widest,
        SAME=by_class.data_ptr() == logits.data_ptr(),
    )
    return best, index, confidence, margin


if triton is not None:

    @triton.jit
    def _top_two(  # type: ignore[no-untyped-def]
        by_class,
        logits,
        best_to,
        index_to,
        confidence_to,
        margin_to,
        num_rows,
        num_classes,
        num_queries,
        ROWS: tl.constexpr,  # noqa: N803
        CLASSES: tl.constexpr,  # noqa: N803
        QUERIES: tl.constexpr,  # noqa: N803
        SAME: tl.constexpr,  # noqa: N803
    ):
        row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        inside = row < num_rows
        column = tl.arange(0, CLASSES)
        wanted = inside[:, None] & (column < num_classes)[None, :]
        x = tl.load(by_class + row[:, None] * num_classes + column[None, :], mask=wanted, other=float("-inf"))
        best = tl.max(x, axis=1)
        index = tl.min(tl.where(x == best[:, None], column[None, :], CLASSES), axis=1)
        second = tl.max(tl.where(column[None, :] == index[:, None], float("-inf"), x), axis=1)
        if SAME:
            total = tl.sum(tl.exp(x - best[:, None]), axis=1)
        else:
            query = tl.arange(0, QUERIES)
            of_query = inside[:, None] & (query < num_queries)[None, :]
            y = tl.load(logits + row[:, None] * num_queries + query[None, :], mask=of_query, other=float("-inf"))
            total = tl.sum(tl.exp(y - best[:, None]), axis=1)
        confidence = 1 / total
        tl.store(best_to + row, best, mask=inside)
        tl.store(index_to + row, index, mask=inside)
        tl.store(confidence_to + row, confidence, mask=inside)
        tl.store(margin_to + row, confidence * (1 - tl.exp(second - best)), mask=inside)
