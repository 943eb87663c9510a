"""The attention of every method: its weights are valid for any features."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from proxyclip.config import ModelConfig
from proxyclip.models.attention import ATTENTION, Heads, own_attention, proxy_attention, resize_values
from proxyclip.recipes.methods import METHODS

OWN = {name: own_attention(ModelConfig(method=name)) for name in ATTENTION}


def test_every_method_has_its_attention():
    assert ATTENTION.keys() == {name for name, method in METHODS.items() if not method.needs_proxy}


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_equations_with_the_mean_over_all_similarities():
    features = randn(2, 50, 16) + 1.5
    weights = proxy_attention(features, beta=1.2, gamma=3.0)
    unit = F.normalize(features.double(), dim=-1)
    similarity = unit @ unit.transpose(1, 2)
    logits = 3.0 * (similarity - 1.2 * similarity.mean(dim=(1, 2), keepdim=True))
    plain = logits.masked_fill(logits < 0, -math.inf).softmax(dim=-1)
    assert 0.05 < (plain == 0).double().mean() < 0.95
    torch.testing.assert_close(weights.double(), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("beta", [0.0, 1.2, 50.0])
def test_rows_sum_to_one(beta, scale):
    weights = proxy_attention(scale * (randn(3, 40, 8) + 0.5), beta=beta, gamma=3.0)
    assert weights.dtype == torch.float32
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 40))


def test_a_row_never_loses_its_diagonal():
    weights = proxy_attention(randn(1, 30, 8) + 3, beta=1000.0, gamma=3.0)
    torch.testing.assert_close(weights[0], torch.eye(30))


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("beta", [0.5, 1.2])
def test_flat_features_treat_all_patches_alike(value, beta):
    weights = proxy_attention(torch.full((2, 25, 6), value), beta=beta, gamma=3.0)
    assert torch.isfinite(weights).all()
    keeps_others = beta < 1 or value == 0  # zero vectors have similarity 0, also on average
    expected = torch.full((25, 25), 1 / 25) if keeps_others else torch.eye(25)
    torch.testing.assert_close(weights, expected.expand(2, -1, -1))


def test_nearly_flat_features_stay_finite():
    weights = proxy_attention(1 + 1e-4 * randn(1, 64, 12), beta=1.2, gamma=3.0)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 64))


def test_a_window_is_the_same_alone_and_in_a_batch():
    alone, other = randn(1, 40, 8) + 0.5, randn(1, 40, 8, seed=1) - 2
    together = proxy_attention(torch.cat([other, alone]), beta=1.2, gamma=3.0)[1:]
    torch.testing.assert_close(together, proxy_attention(alone, beta=1.2, gamma=3.0), rtol=0, atol=1e-6)


def test_a_single_patch_attends_to_itself():
    torch.testing.assert_close(proxy_attention(randn(1, 1, 8), beta=1.2, gamma=3.0), torch.ones(1, 1, 1))


def random_heads():
    q, k, v = (5 * randn(2, 3, 13, 8, seed=seed) for seed in range(3))
    return Heads(q, k, v, (3, 4), 1, torch.tensor([10.0, 20.0]))


@pytest.mark.parametrize("name", OWN)
def test_the_rows_of_own_attention_have_a_known_sum(name):
    weights = OWN[name](random_heads())
    assert weights.shape == (2, 3, 13, 13)
    torch.testing.assert_close(weights.sum(dim=-1), torch.full((2, 3, 13), 2.0 if name == "sclip" else 1.0))


@pytest.mark.parametrize("name", OWN)
def test_own_attention_of_a_window_is_the_same_alone_and_in_a_batch(name):
    heads = random_heads()
    parts = {part: getattr(heads, part)[1:] for part in ("q", "k", "v", "length")}
    alone = OWN[name](dataclasses.replace(heads, **parts))
    torch.testing.assert_close(OWN[name](heads)[1:], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_own_attention_needs_no_cls(name):
    heads = random_heads()
    parts = {part: getattr(heads, part)[..., 1:, :] for part in "qkv"}
    weights = OWN[name](dataclasses.replace(heads, **parts, num_prefix=0))
    assert weights.shape == (2, 3, 12, 12)
    assert torch.isfinite(weights).all()


def test_gem_by_hand():
    """Two tokens: normalise, mix by themselves once, normalise again, then average the attentions of q, k and v."""
    x = {"q": [[3.0, 0.0], [0.0, 2.0]], "k": [[1.0, 0.0], [1.0, 0.0]], "v": [[0.0, 1.0], [0.0, -1.0]]}
    heads = Heads(*(torch.tensor([[x[part]]]) for part in "qkv"), (1, 2), 0, torch.tensor([4.0]))
    tau = math.sqrt(2) / 4
    expected = torch.zeros(2, 2)
    for part in "qkv":
        unit = F.normalize(torch.tensor(x[part]), dim=-1)
        unit = F.normalize((unit @ unit.T / tau).softmax(-1) @ unit, dim=-1)
        expected += (unit @ unit.T / tau).softmax(-1) / 3
    torch.testing.assert_close(OWN["gem"](heads)[0, 0], expected)


def test_the_neighbourhood_follows_the_grid_and_leaves_cls_alone():
    """With keys of zero, only the Gaussian of NACLIP's weights is left."""
    zero = torch.zeros(1, 1, 13, 8)
    logits = OWN["naclip"](Heads(zero, zero, zero, (3, 4), 1, torch.ones(1))).log()[0, 0]
    logits = logits - logits[:, :1]  # the Gaussian of CLS is zero
    torch.testing.assert_close(logits[0], torch.zeros(13))
    right, below = logits[1, 2], logits[1, 5]  # from patch (0, 0) to (0, 1), and to (1, 0), 4 further
    expected = math.exp(-1 / 50)
    assert (logits[1, 1].item(), right.item(), below.item()) == pytest.approx((1, expected, expected), abs=1e-5)


@pytest.mark.parametrize("std", [0.001, 1.0, 2.5, 1e6])
@pytest.mark.parametrize("name", ["naclip", "naclip-nonly"])
def test_the_gaussian_has_the_configured_width(name, std):
    """With these q and k, the logarithm of the weights is the Gaussian, up to a constant per row."""
    attention = own_attention(ModelConfig(method=name, gaussian_std=std))
    zero, unit = torch.zeros(1, 1, 12, 4), F.normalize(torch.ones(1, 1, 12, 4), dim=-1) * math.sqrt(2)
    x = zero if name == "naclip" else unit  # |q| |k| / sqrt d is 1
    logits = attention(Heads(x, x, x, (3, 4), 0, torch.ones(1))).log()[0, 0]
    expected = math.exp(-4 / (2 * std**2)) - 1 if std > 0.01 else -1  # from patch (0, 0) to (0, 2), minus to itself
    assert (logits[0, 2] - logits[0, 0]).item() == pytest.approx(expected, abs=1e-5)


def test_the_width_matters_only_to_methods_with_a_gaussian():
    heads = random_heads()
    for name in ATTENTION:
        narrow = own_attention(ModelConfig(method=name, gaussian_std=1.0))(heads)
        assert torch.equal(narrow, OWN[name](heads)) == (name not in {"naclip", "naclip-nonly"}), name


def test_own_attention_by_hand():
    q, k = torch.tensor([[[[2.0, 0.0], [0.0, 1.0]]]]), torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    s = 1 / math.sqrt(2)
    heads = Heads(q, k, k, (1, 1), 1, torch.ones(1))
    torch.testing.assert_close(OWN["clip"](heads)[0, 0], torch.tensor([[0, 2 * s], [s, 0]]).softmax(-1))
    torch.testing.assert_close(OWN["clearclip"](heads)[0, 0], torch.tensor([[4 * s, 0], [0, s]]).softmax(-1))
    torch.testing.assert_close(OWN["maskclip"](heads)[0, 0], torch.eye(2))


def test_values_on_an_equal_grid_stay_as_they_are():
    values = randn(2, 12, 5)
    assert torch.equal(resize_values(values, (3, 4), (3, 4)), values)


def test_values_are_resized_row_major():
    rows, columns = torch.meshgrid(torch.arange(2.0), torch.arange(3.0), indexing="ij")
    values = torch.stack([rows.flatten(), columns.flatten()], dim=1)[None]  # (1, 6, 2)
    resized = resize_values(values, (2, 3), (4, 9)).unflatten(1, (4, 9))[0]
    torch.testing.assert_close(resized[:, 4, 0], torch.tensor([0, 0.25, 0.75, 1]))
    torch.testing.assert_close(resized[1, :, 1], torch.tensor([0, 0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2, 2]))
