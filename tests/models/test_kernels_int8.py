"""Linear layers in 8 bits: close to float32, each token by itself, and only where they belong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import WINDOWS, random_image, tiny_clip, tiny_vit
from torch import nn

from proxyclip.config import ModelConfig, SegmenterConfig
from proxyclip.models.kernels.int8 import Int8Linear
from proxyclip.models.segmenter import Segmenter


def refuse(*args):
    raise AssertionError("this layer is to run in 8 bits")


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(96, 40).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_layer_within_a_percent(layer, bias):
    x = torch.randn(2, 100, 96) * torch.logspace(-3, 3, 100)[None, :, None]  # tokens of very different size
    found = Int8Linear(layer, refuse)(x, layer.weight, layer.bias if bias else None)
    wanted = F.linear(x, layer.weight, layer.bias if bias else None)
    error = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert 0 < error.max() < 0.02


def test_a_token_does_not_depend_on_the_others(layer):
    x = torch.randn(1, 130, 96)
    linear = Int8Linear(layer, refuse)
    whole = linear(x, layer.weight, layer.bias)
    assert torch.equal(linear(x[:, :70], layer.weight, layer.bias), whole[:, :70])


def test_zeros_stay_zeros(layer):
    assert torch.equal(Int8Linear(layer, refuse)(torch.zeros(1, 64, 96), layer.weight), torch.zeros(1, 64, 40))


def test_other_layers_and_small_inputs_are_left_alone(layer):
    other, taken = nn.Linear(96, 40), []
    linear = Int8Linear(layer, lambda *args: taken.append(args))
    linear(torch.randn(1, 100, 96), other.weight, other.bias)
    linear(torch.randn(1, 10, 96), layer.weight, layer.bias)
    assert len(taken) == 2


def test_features_are_close_to_float32_and_the_same_in_any_company():
    exact = Segmenter(tiny_clip(), tiny_vit(), SegmenterConfig(windows=WINDOWS))
    config = SegmenterConfig(ModelConfig(dtype="int8"), WINDOWS)
    quantised = Segmenter(tiny_clip(), tiny_vit(), config)
    images = [random_image(90, 130), random_image(112, 300)]
    together = quantised.encode_batch(images)
    for image, found in zip(images, together, strict=True):
        assert torch.equal(quantised.encode(image).features, found.features)
        wanted = exact.encode(image).features
        assert not torch.equal(found.features, wanted)
        assert (found.features * wanted).sum(dim=-1).mean() > 0.99


@pytest.mark.parametrize(
    ("method", "device", "reason"), [("clearclip", "cpu", "has none"), ("proxyclip", "meta", "CPU")]
)
def test_where_it_cannot_be_it_is_refused(method, device, reason):
    config = SegmenterConfig(ModelConfig(method=method, dtype="int8"), WINDOWS)
    with pytest.raises(ValueError, match=reason):
        Segmenter(tiny_clip(), tiny_vit(), config, device=device)
