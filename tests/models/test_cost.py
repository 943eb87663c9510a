"""The cost counted on the networks equals known figures, and grows with windows and networks."""

from __future__ import annotations

import dataclasses

import pytest

from proxyclip.models.cost import gflop_per_image
from proxyclip.recipes.presets import preset


def test_the_default_preset_costs_what_was_counted_elsewhere():
    """Two windows of 336 pixels, 507 GFLOP each: 415 DINO ViT-B/8, 82 CLIP ViT-B/16, 10 proxy attention."""
    assert gflop_per_image(preset("proxyclip-b16-dino-b8").config) == pytest.approx(2 * 507, rel=0.01)


def test_cost_grows_with_windows_and_networks():
    config = preset("proxyclip-b16-dino-b16").config
    cost = gflop_per_image(config)
    assert gflop_per_image(config, (375, 2000)) == pytest.approx(7 * cost, rel=0.01)  # 14 windows for 2
    assert gflop_per_image(preset("proxyclip-l14-dino-b16").config) > 2 * cost
    whole = dataclasses.replace(config, windows=dataclasses.replace(config.windows, crop=0))
    assert gflop_per_image(whole) < cost


@pytest.mark.parametrize("name", ["demo", "naclip-b16", "proxyclip-b16-sam-b", "proxyclip-b16-radio-v3-b16"])
def test_every_kind_of_network_is_counted(name):
    assert gflop_per_image(preset(name).config) > 1
