"""Functions of torch are replaced inside a block, and only there."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from proxyclip.models.kernels.torch_calls import TorchCalls

X = torch.arange(6.0).reshape(2, 3)


def test_a_function_is_replaced_inside_the_block_only():
    layer = torch.nn.Linear(3, 4)
    with TorchCalls({F.linear: lambda x, weight, bias: x + 1}):
        assert torch.equal(layer(X), X + 1)
        assert torch.equal(X.relu(), X)
    assert layer(X).shape == (2, 4)


def test_a_replacement_may_call_what_it_replaces():
    layer = torch.nn.Linear(3, 4)
    expected = 2 * layer(X)
    with TorchCalls({F.linear: lambda *args: 2 * F.linear(*args)}):
        assert torch.equal(layer(X), expected)


def test_of_nested_blocks_the_inner_one_counts_and_the_outer_one_takes_the_rest():
    """So the last block of a timm tower has another attention while all networks use the CPU's kernels."""
    calls = []
    outer = TorchCalls({torch.log: lambda x: calls.append("outer log"), torch.exp: lambda x: calls.append("outer exp")})
    with outer, TorchCalls({torch.log: lambda x: calls.append("inner log")}):
        torch.log(X)
        torch.exp(X)
    with outer:  # it can be entered again
        torch.log(X)
    assert calls == ["inner log", "outer exp", "outer log"]
