"""Summaries of labels: means of blocks, sums per class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from proxyclip.models.decoding import reduce
from proxyclip.models.decoding.reduce import class_sums, reduce_confidence


@pytest.mark.parametrize("shape", [(8, 12), (9, 13), (3, 2), (1, 1)])
@pytest.mark.parametrize("stride", [1, 4])
def test_reduced_confidence_is_the_mean_of_the_pixels_of_each_block(shape, stride):
    confidence = np.random.default_rng(0).random(shape, np.float32)
    reduced = reduce_confidence(torch.from_numpy(confidence), stride).numpy()
    assert reduced.shape == (-(-shape[0] // stride), -(-shape[1] // stride))
    for (row, column), value in np.ndenumerate(reduced):
        block = confidence[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
        assert abs(value - 255 * block.mean()) < 0.51
    assert (reduce_confidence(torch.ones(shape), stride) == 255).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_class_sums_are_those_of_a_loop(dtype, monkeypatch):
    monkeypatch.setattr(reduce, "PIXELS_AT_ONCE", 100)
    rng = np.random.default_rng(1)
    labels, confidence = rng.integers(0, 5, (30, 41)), rng.random((30, 41), np.float32)
    pixels, sums = class_sums(torch.tensor(labels, dtype=dtype), torch.from_numpy(confidence), 7)
    assert pixels.tolist() == [int((labels == index).sum()) for index in range(7)]
    wanted = [confidence[labels == index].sum(dtype=np.float64) for index in range(7)]
    np.testing.assert_allclose(sums, wanted, rtol=1e-6)


def test_class_sums_do_not_depend_on_the_order_of_pixels():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (1, 5000), generator=generator)
    confidence = torch.rand(1, 5000, generator=generator)
    order = torch.randperm(5000, generator=generator)
    wanted = class_sums(labels, confidence, 3)
    for some, other in zip(wanted, class_sums(labels[:, order], confidence[:, order], 3), strict=True):
        assert torch.equal(some, other)
