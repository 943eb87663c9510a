"""The speed of both loaders is measured on whole epochs."""

from __future__ import annotations

from performance.loading import measure_loading
from trainable import make_output


def test_both_loaders_are_measured(tmp_path):
    rows = measure_loading(make_output(str(tmp_path)), None, (0,), samples=30, rounds=1)
    assert [row["loader"] for row in rows] == ["MaskStream", "MaskDataset with ShardSampler"]
    assert all(float(row["samples/s"]) > 0 for row in rows)
