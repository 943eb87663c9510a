"""Settings of a segmenter: wrong ones are refused, and the others have their effect."""

from __future__ import annotations

import pytest
import torch
from tiny import WINDOWS, random_image, tiny_clip, tiny_segmenter

from proxyclip.config import ModelConfig, SegmenterConfig
from proxyclip.models.segmenter import Segmenter


def test_an_unknown_method_is_refused_before_anything_is_loaded():
    config = SegmenterConfig(ModelConfig(method="magic", clip="local-dir:absent"))
    with pytest.raises(ValueError, match=r"Unknown method 'magic'.*clip, maskclip, sclip, clearclip"):
        Segmenter(tiny_clip(), None, config)
    with pytest.raises(ValueError, match="Unknown method 'magic'"):
        Segmenter.from_config(config)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float8"):
        tiny_segmenter(SegmenterConfig(ModelConfig(dtype="float8"), WINDOWS))


def test_naclips_neighbourhood_has_the_configured_width():
    image = random_image(112, 112)

    def features(**model):
        config = SegmenterConfig(ModelConfig(method="naclip", **model), WINDOWS)
        return Segmenter(tiny_clip(), None, config).encode(image).features

    assert torch.equal(features(gaussian_std=5.0), features())
    assert (features(gaussian_std=1.0) - features()).abs().max() > 1e-3


def test_a_missing_proxy_is_refused():
    with pytest.raises(ValueError, match="Method 'proxyclip' needs a proxy"):
        Segmenter(tiny_clip())
    assert Segmenter(tiny_clip(), None, SegmenterConfig(ModelConfig(method="clearclip"))).proxy is None


def test_batches_hold_a_window_at_least():
    with pytest.raises(ValueError, match="batch_windows must be at least 1, found 0"):
        tiny_segmenter(batch_windows=0)
