"""The table of calibration: halves that follow the same law keep what was promised."""

from __future__ import annotations

import numpy as np
from performance.calibration import measure_halves, measure_random_halves

from proxyclip.evaluation.calibration.choosing import Rule
from proxyclip.evaluation.calibration.evidence import BINS, Evidence, ImageCounts


def image(number):
    """An image of one class: half of the pixels of confidence 0.8 are right, and all of confidence 1 are."""
    pixels = np.zeros((1, BINS), np.int64)
    pixels[0, [204, 255]] = 3000, 1000
    right = pixels.copy()
    right[0, 204] = 1500
    return ImageCounts(f"{number:02d}", np.array([0]), right, pixels)


def test_halves_and_random_halves():
    evidence = Evidence.of(1, map(image, range(40)))
    halves = measure_halves(evidence, Rule(0.9))
    assert [row["split"] for row in halves] == ["even -> odd", "odd -> even"]
    for row in halves:
        assert (row["all right"], row["kept right"], row["share kept"]) == ("62.5 %", "100.0 %", "25.0 %")
        assert row["calibration error"] == "0.225"  # (0.8 - 0.5) * 3 / 4
    random = {row["split"]: row for row in measure_random_halves(evidence, Rule(0.9), 5)}
    assert random["random, lowest"]["kept right"] == "100.0 %"
    assert random["random, below 0.90"]["kept right"] == "0.0 %"
    assert random["random, standard deviation"]["share kept"] == "0.0 %"
