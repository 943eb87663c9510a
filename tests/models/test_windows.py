"""Window plans, and the stitch as one matrix per axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import LargestTensor

from proxyclip.config import WindowConfig
from proxyclip.images.sizes import resized_hw
from proxyclip.models.windows import cut_windows, plan_windows, stitch_matrix

PAPER = WindowConfig()
SMALL = WindowConfig(short_side=50, long_side=300, crop=40, stride=15, pad_multiple=8)
RNG = np.random.default_rng(0)
SIZES = [(1, 1), (3, 500), (37, 41), (64, 64), (200, 90), *map(tuple, RNG.integers(5, 160, (4, 2)).tolist())]
CONFIGS = {
    "windows": SMALL,
    "one pixel of stride": WindowConfig(short_side=20, long_side=60, crop=16, stride=1, pad_multiple=5),
    "windows side by side": WindowConfig(short_side=48, long_side=200, crop=16, stride=16, pad_multiple=1),
    "whole": WindowConfig(short_side=50, long_side=300, crop=0, stride=15),
}


@pytest.mark.parametrize(
    ("image_hw", "wanted"),
    [
        ((375, 500), (336, 448)),
        ((500, 375), (448, 336)),
        ((1367, 2048), (336, 503)),
        ((333, 500), (336, 505)),  # 504.5 rounds up
        ((100, 100), (336, 336)),
        ((1, 5000), (1, 2048)),  # 0.41 + 0.5 rounds down to 0 rows
        ((5000, 1), (2048, 1)),
        ((100, 1000), (205, 2048)),
    ],
)
def test_sizes_follow_the_rule_of_mmcv(image_hw, wanted):
    assert resized_hw(image_hw, PAPER) == wanted


def test_a_whole_image_holds_at_least_a_patch():
    assert resized_hw((1, 5000), WindowConfig(crop=0)) == (32, 2048)


def test_the_published_plan():
    plan = plan_windows((375, 500), PAPER)
    assert (plan.y.starts, plan.x.starts) == ((0,), (0, 112))
    assert plan.padded_hw == (336, 336)
    assert (plan.num_windows, plan.whole) == (2, False)


@pytest.mark.parametrize("image_hw", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_windows_cover_every_pixel_and_end_at_the_border(name, image_hw):
    config = CONFIGS[name]
    plan = plan_windows(image_hw, config)
    assert (plan.y.original, plan.x.original) == image_hw
    assert (plan.y.resized, plan.x.resized) == resized_hw(image_hw, config)
    for axis in (plan.y, plan.x):
        covered = np.zeros(axis.resized, bool)
        for start in axis.starts:
            assert start >= 0
            covered[start : start + axis.length] = True
        assert covered.all()
        assert axis.starts[-1] + axis.length == axis.resized
        assert axis.length == (min(config.crop, axis.resized) if config.crop else axis.resized)
        assert len(set(axis.starts)) == len(axis.starts)
        assert np.diff(axis.starts).max(initial=0) <= config.stride


def test_an_axis_shorter_than_the_crop_has_one_window_of_its_own_length():
    plan = plan_windows((10, 200), WindowConfig(short_side=300, long_side=200, crop=40, stride=20, pad_multiple=8))
    assert (plan.y.starts, plan.y.length, plan.y.padded) == ((0,), 10, 16)
    assert (plan.x.length, plan.x.starts[-1]) == (40, 160)


def test_the_odd_pixel_of_padding_goes_right_and_bottom():
    plan = plan_windows((41, 37), WindowConfig(short_side=37, long_side=1000, crop=100, stride=50, pad_multiple=8))
    assert (plan.y.pad_before, plan.y.pad_after) == (3, 4)
    assert (plan.x.pad_before, plan.x.pad_after) == (1, 2)


def test_the_whole_image_is_one_window_without_padding():
    plan = plan_windows((41, 87), WindowConfig(short_side=45, long_side=1000, crop=0))
    assert plan.whole
    assert plan.num_windows == 1
    assert plan.padded_hw == (plan.y.resized, plan.x.resized) == (45, 95)


def test_windows_are_cut_where_the_plan_says_and_padded_with_the_colour():
    plan = plan_windows((45, 70), WindowConfig(short_side=45, long_side=1000, crop=37, stride=20, pad_multiple=8))
    image, fill = torch.rand(3, 45, 70), torch.tensor([2.0, 3.0, 4.0])
    windows = cut_windows(image, plan, fill)
    assert windows.shape == (plan.num_windows, 3, 40, 40)
    padded = fill.view(3, 1, 1).repeat(1, 40, 40)
    for index, (top, left) in enumerate((top, left) for top in plan.y.starts for left in plan.x.starts):
        padded[:, 1:38, 1:38] = image[:, top : top + 37, left : left + 37]
        torch.testing.assert_close(windows[index], padded, rtol=0, atol=0)


def stitch_plainly(windows, plan):
    """(num_windows, C, grid_h, grid_w) to (C, H, W), as the papers' code does it, in float64."""
    original = (plan.y.original, plan.x.original)
    if plan.whole:
        return F.interpolate(windows, size=original, mode="bilinear", align_corners=False)[0]
    total = windows.new_zeros(1, windows.shape[1], plan.y.resized, plan.x.resized)
    count = windows.new_zeros(1, 1, plan.y.resized, plan.x.resized)
    starts = [(top, left) for top in plan.y.starts for left in plan.x.starts]
    for window, (top, left) in zip(windows, starts, strict=True):
        large = F.interpolate(window[None], size=plan.padded_hw, mode="bilinear", align_corners=False)
        rows, columns = slice(plan.y.pad_before, None), slice(plan.x.pad_before, None)
        inside = large[:, :, rows, columns][:, :, : plan.y.length, : plan.x.length]
        total[:, :, top : top + plan.y.length, left : left + plan.x.length] += inside
        count[:, :, top : top + plan.y.length, left : left + plan.x.length] += 1
    return F.interpolate(total / count, size=original, mode="bilinear", align_corners=False)[0]


def stitch(windows, plan):
    """The same with the matrices."""
    grid_h, grid_w = windows.shape[2:]
    tiled = windows.unflatten(0, (len(plan.y.starts), -1)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return stitch_matrix(plan.y, grid_h, plan.whole) @ tiled.float() @ stitch_matrix(plan.x, grid_w, plan.whole).T


@pytest.mark.parametrize("image_hw", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_matrices_stitch_as_the_plain_way(name, image_hw):
    plan = plan_windows(image_hw, CONFIGS[name])
    generator = torch.Generator().manual_seed(sum(image_hw))
    windows = torch.randn(plan.num_windows, 2, 6, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(stitch(windows, plan).double(), stitch_plainly(windows, plan), rtol=0, atol=1e-5)


@pytest.mark.parametrize("image_hw", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_constant_windows_stitch_to_the_constant(name, image_hw):
    plan = plan_windows(image_hw, CONFIGS[name])
    for axis in (plan.y, plan.x):
        matrix = stitch_matrix(axis, 7, plan.whole)
        assert matrix.shape == (axis.original, 7 * len(axis.starts))
        assert matrix.dtype == torch.float32
        assert (matrix >= 0).all()
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(axis.original), rtol=0, atol=1e-5)


def test_stitching_and_text_projection_commute():
    plan = plan_windows((70, 90), SMALL)
    features = torch.randn(plan.num_windows, 16, 5, 5, generator=torch.Generator().manual_seed(0))
    text = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(1)), dim=-1)

    def project(maps):
        return torch.einsum("...chw,qc->...qhw", maps, text)

    torch.testing.assert_close(project(stitch(features, plan)), stitch(project(features), plan), rtol=0, atol=1e-4)


def test_a_very_long_image_takes_memory_in_proportion():
    """No matrix of all pixels by all resized pixels is made, since an image may be 60 000 pixels long."""
    axis = plan_windows((20_000, 1), PAPER).y
    with LargestTensor() as largest:
        matrix = stitch_matrix(axis, 42, whole=False)
    assert matrix.numel() <= largest.numel <= 2 * matrix.numel()
