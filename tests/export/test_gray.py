"""Masks without a palette: the same values."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from proxyclip.dataset.masks import mask_from_png, mask_to_png
from proxyclip.export.gray import gray_png
from proxyclip.vocabulary.palette import default_palette


@pytest.mark.parametrize(("num_classes", "mode"), [(1, "L"), (4, "L"), (255, "L"), (256, "I;16")])
@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (300, 7)])
def test_values_stay_and_colours_go(num_classes, mode, shape):
    ignore = 255 if num_classes < 256 else 65535
    mask = np.random.default_rng(0).integers(0, num_classes + 1, shape)
    mask[mask == num_classes] = ignore
    gray = gray_png(mask_to_png(mask, default_palette(num_classes)))
    with Image.open(io.BytesIO(gray)) as image:
        assert image.mode == mode
        assert image.getpalette() is None
    assert (mask_from_png(gray) == mask).all()
