"""Speed against quality: what the steps change, and what agreement they were measured to have."""

from __future__ import annotations

import pytest
import torch
from tiny import WINDOWS, random_image, tiny_segmenter

from proxyclip.config import ModelConfig, SegmenterConfig
from proxyclip.models.networks.build import check_proxy
from proxyclip.models.windows import plan_windows, shrink_windows
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.recipe import segmenter_config
from proxyclip.recipes.presets import PRESETS
from proxyclip.recipes.quality import quality
from proxyclip.vocabulary.names import Vocabulary

NAMES = Vocabulary.from_names(["sky", "grass"])


def options(**changes):
    return LabelOptions("in", "out", "names", **changes)


@pytest.mark.parametrize("name", PRESETS)
def test_exact_is_the_preset_and_the_others_cost_less(name):
    config = PRESETS[name].config
    assert quality("exact").applied_to(config) == config
    for faster in ("balanced", "fast"):
        changed = quality(faster).applied_to(config)
        assert (
            plan_windows((700, 1200), changed.windows).num_windows
            <= plan_windows((700, 1200), config.windows).num_windows
        )
        assert changed != config or config.windows.crop == 0
        assert (changed.model.proxy_scale < 1) == (config.model.proxy is not None)


def test_an_unknown_quality_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown quality 'best'\. .*Qualities: exact, balanced, fast"):
        segmenter_config(options(quality="best"), NAMES)


def test_single_options_come_after_the_quality():
    config = segmenter_config(options(quality="fast", stride=56), NAMES)
    assert (config.windows.stride, config.model.proxy_scale) == (56, 0.5)
    assert segmenter_config(options(quality="fast", method="clearclip"), NAMES).model.proxy_scale == 1


@pytest.mark.parametrize(
    ("scale", "patch_px", "wanted"), [(0.5, 8, 168), (0.75, 8, 256), (0.75, 14, 252), (0.01, 16, 16)]
)
def test_windows_shrink_to_whole_patches(scale, patch_px, wanted):
    windows = torch.rand(2, 3, 336, 336)
    shrunk = shrink_windows(windows, scale, patch_px)
    assert shrunk.shape == (2, 3, wanted, wanted)
    torch.testing.assert_close(shrunk.mean(), windows.mean(), rtol=0, atol=0.01)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_grid_shrinks_with_the_proxys_windows(scale):
    segmenter = tiny_segmenter(SegmenterConfig(ModelConfig(proxy_scale=scale), WINDOWS))
    features = segmenter.encode(random_image(90, 130))
    side = round(WINDOWS.crop * scale / segmenter.proxy.patch_px)
    assert features.features.shape[2:4] == (side, side)
    assert features.image_hw == (90, 130)


def test_a_scale_of_one_changes_no_bit():
    image = random_image(90, 130)
    one = tiny_segmenter(SegmenterConfig(ModelConfig(), WINDOWS)).encode(image)
    other = tiny_segmenter(SegmenterConfig(ModelConfig(proxy_scale=1), WINDOWS)).encode(image)
    assert torch.equal(one.features, other.features)


@pytest.mark.parametrize("proxy", ["mae-b16", "sam2-t"])
def test_a_proxy_with_one_size_for_all_windows_is_refused_before_the_run(proxy):
    check_proxy(ModelConfig(proxy=proxy), 336)
    with pytest.raises(ValueError, match=r"--quality.* square of its own.* exact"):
        check_proxy(ModelConfig(proxy=proxy, proxy_scale=0.5), 336)
    check_proxy(ModelConfig(proxy="dino-s8", proxy_scale=0.5), 336)
