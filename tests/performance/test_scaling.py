"""The pipeline with waiting instead of networks: a small run."""

from __future__ import annotations

import numpy as np
import pytest
from performance.scaling import measure_scaling
from PIL import Image

from proxyclip.demo.scenes import draw_scene


@pytest.mark.slow
def test_stand_ins_go_through_the_whole_pipeline(tmp_path):
    for index in range(4):
        Image.fromarray(draw_scene(index, (375, 500)).image).save(tmp_path / f"{index}.jpg")
    one, two = measure_scaling(str(tmp_path), 0.02, (1, 2), run_s=80)
    assert 0 < float(one["images/s"]) <= 52  # one stand-in does 50 images/s
    assert float(two["images/s"]) <= 104
    assert float(two["of 1 actor"].removesuffix("x")) == pytest.approx(
        float(two["images/s"]) / float(one["images/s"]), rel=0.05
    )


def test_images_of_another_size_are_refused(tmp_path):
    Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a.jpg has 10 x 12 pixels; give images of 500 x 375"):
        measure_scaling(str(tmp_path), 0.02, (1,), run_s=80)
