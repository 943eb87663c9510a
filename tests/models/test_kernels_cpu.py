"""The CPU's kernels compute what torch computes, and replace only the calls that they are meant for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from proxyclip.models.kernels import cpu as cpu_kernels
from proxyclip.models.kernels.cpu import PackedLinear, attend, matmul
from proxyclip.models.kernels.of_device import network_kernels

CPU = torch.device("cpu")


def randn(*shape, seed=0, dtype=torch.bfloat16):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("at_once", [2**23, 40 * 40, 1])
def test_it_is_torchs_attention(at_once, monkeypatch):
    monkeypatch.setattr(cpu_kernels, "WEIGHTS_AT_ONCE", at_once)
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
    monkeypatch.setattr(cpu_kernels, "WEIGHTS_AT_ONCE", heads_at_once * 50 * 50)
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
    monkeypatch.setattr(cpu_kernels, "attend", lambda *args: taken.append(args) or args[2])
    q = randn(1, 2, 5, 8, dtype=dtype)
    with network_kernels(CPU):
        F.scaled_dot_product_attention(q, q, q, **kwargs)
    assert bool(taken) == ours


def test_other_devices_keep_torchs_functions(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "attend", lambda *args: pytest.fail("replaced"))
    q = randn(1, 2, 5, 8)
    with network_kernels(torch.device("cuda")):
        F.scaled_dot_product_attention(q, q, q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_packed_layer_is_torchs_layer(dtype, bias):
    layer = torch.nn.Linear(96, 160, bias=bias).to(dtype)
    x = randn(2, 70, 96, dtype=dtype)
    exact = F.linear(*(None if part is None else part.double() for part in (x, layer.weight, layer.bias)))
    linear = PackedLinear()
    found = [linear(x, layer.weight, layer.bias) for _ in range(2)]
    assert len(linear.packed) == 1
    assert torch.equal(*found)
    with network_kernels(CPU):
        assert torch.equal(layer(x), found[0])
    assert found[0].dtype == dtype
    error = (found[0].double() - exact).norm() / exact.norm()
    assert error < (1e-6 if dtype == torch.float32 else 0.01)


def test_what_learns_or_is_small_is_left_to_torch():
    layer, linear = torch.nn.Linear(8, 8), PackedLinear()
    linear(randn(100, 8, dtype=torch.float32), layer.weight, layer.bias).sum().backward()
    with torch.inference_mode():
        linear(randn(3, 8, dtype=torch.float32), layer.weight, layer.bias)
        linear(randn(100, 8, dtype=torch.float32), randn(4, 8, dtype=torch.float32))
    assert layer.weight.grad is not None
    assert not linear.packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_bits_do_not_depend_on_the_number_of_threads(dtype):
    """Actors have different numbers of threads, and must give the same masks."""
    layer, before = torch.nn.Linear(192, 384).to(dtype), torch.get_num_threads()
    x = randn(1, 145, 192, dtype=dtype)
    q = randn(1, 3, 145, 64, dtype=dtype)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with network_kernels(CPU):
                found.append((layer(x), F.scaled_dot_product_attention(q, q, q)))
    finally:
        torch.set_num_threads(before)
    for linear, attention in found[1:]:
        assert torch.equal(linear, found[0][0])
        assert torch.equal(attention, found[0][1])


@torch.inference_mode()
def test_a_product_is_torchs_product():
    a, b = randn(2, 100, 70, dtype=torch.float32), randn(2, 70, 90, seed=1, dtype=torch.float32)
    taken = []
    with pytest.MonkeyPatch.context() as patch, network_kernels(CPU):
        patch.setattr(cpu_kernels, "matmul", lambda x, y: taken.append(1) or matmul(x, y))
        found = [a @ b, torch.matmul(a, b), a.matmul(b)]
        small = a[:, :10] @ b
    assert len(taken) == 3
    exact = a.double() @ b.double()
    assert all((each - exact).norm() < 1e-6 * exact.norm() for each in found)
    torch.testing.assert_close(small, found[0][:, :10])
