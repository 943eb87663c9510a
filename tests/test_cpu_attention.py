"""Attention in bfloat16 on a CPU is that of torch, and taken only where it is meant."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from proxyclip.models import cpu_attention
from proxyclip.models.cpu_attention import CpuAttention, attend


def randn(*shape, seed=0, dtype=torch.bfloat16):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("at_once", [2**23, 40 * 40, 1])
def test_it_is_torchs_attention(at_once, monkeypatch):
    monkeypatch.setattr(cpu_attention, "WEIGHTS_AT_ONCE", at_once)
    q, k, v = (randn(2, 3, 40, 16, seed=seed) for seed in range(3))
    exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    found = attend(q, k, v)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() < 0.01 * exact.norm()


def test_views_of_one_product_are_taken_as_they_are():
    q, k, v = randn(1, 30, 3 * 4 * 16).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(attend(q, k, v), attend(q.contiguous(), k.contiguous(), v.contiguous()), rtol=0, atol=0)


@pytest.mark.parametrize("heads_at_once", [1, 2, 4])
def test_heads_do_not_depend_on_how_many_are_taken_at_once(heads_at_once, monkeypatch):
    q, k, v = (randn(1, 4, 50, 16, seed=seed) for seed in range(3))
    whole = attend(q, k, v)
    monkeypatch.setattr(cpu_attention, "WEIGHTS_AT_ONCE", heads_at_once * 50 * 50)
    torch.testing.assert_close(attend(q, k, v), whole, rtol=0.02, atol=0.01)


@pytest.mark.parametrize(
    ("dtype", "kwargs", "ours"),
    [
        (torch.bfloat16, {}, True),
        (torch.bfloat16, {"attn_mask": None, "dropout_p": 0.0, "is_causal": False}, True),
        (torch.bfloat16, {"is_causal": True}, False),
        (torch.bfloat16, {"attn_mask": torch.ones(5, 5, dtype=torch.bool)}, False),
        (torch.float32, {}, False),
    ],
    ids=str,
)
def test_only_plain_calls_in_bfloat16_are_taken(dtype, kwargs, ours, monkeypatch):
    taken = []
    monkeypatch.setattr(cpu_attention, "attend", lambda *args: taken.append(args) or args[2])
    q = randn(1, 2, 5, 8, dtype=dtype)
    with CpuAttention():
        F.scaled_dot_product_attention(q, q, q, **kwargs)
    assert bool(taken) == ours
