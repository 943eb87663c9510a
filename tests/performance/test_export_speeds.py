"""Export speeds: a row for each format that can run."""

from __future__ import annotations

import sys

from exports import label
from performance.export import measure_export


def test_every_format_has_a_row_but_those_whose_library_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "label_studio_sdk", None)
    label(tmp_path, ["a.jpg"])
    rows = measure_export(tmp_path / "labels", rounds=1)
    shown = [row["format"] for row in rows]
    assert shown[:2] == ["png, as stored", "png, --ignore-below 0.5"]
    assert sorted(shown[2:]) == ["coco", "cvat", "fiftyone", "huggingface", "webdataset", "yolo"]
    assert all(float(row["images/s"]) > 0 and float(row["KiB an image"]) > 0 for row in rows)
