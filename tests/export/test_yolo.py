"""yolo: polygons, read back as the format's documentation says; no reader of YOLO is among the dependencies.

A line is a class and the corners of one polygon, as shares of width and height.
"""

from __future__ import annotations

import cv2
import numpy as np
import yaml
from exports import NAMES, exported, masks

from proxyclip.dataset.masks import confidence_to_png, mask_to_png
from proxyclip.dataset.rows import LabelledImage
from proxyclip.export.formats.yolo import Yolo
from proxyclip.export.selection import ExportImage, Selection
from proxyclip.export.target import Target
from proxyclip.vocabulary.palette import default_palette


def drawn(text, shape):
    """The polygons drawn in the order of their lines, as whole pixels."""
    mask = np.full(shape, 255, np.uint8)
    for line in text.splitlines():
        index, *numbers = line.split()
        points = np.array(numbers, float).reshape(-1, 2)
        assert len(points) >= 3
        assert ((points > 0) & (points < 1)).all()
        cv2.fillPoly(mask, [(points * shape[::-1]).astype(np.int32)], int(index))
    return mask


def test_what_is_drawn_back_is_the_mask_but_for_holes_without_a_class(output, tmp_path):
    folder = exported(output, tmp_path / "to", "yolo")
    assert yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))["names"] == dict(enumerate(NAMES))
    for uri, mask in masks(output).items():
        found = drawn((folder / "labels" / f"{uri.rpartition('.')[0]}.txt").read_text(), mask.shape)
        labelled = mask != 255
        assert (found[labelled] == mask[labelled]).all()
        wrong = (found != mask).mean()
        assert wrong < 0.05, f"{uri}: {wrong:.3f} of the pixels are holes that are filled"


def test_a_large_region_in_a_thin_ring_is_drawn_after_it():
    mask = np.full((40, 50), 255, np.uint8)
    mask[5:35, 5:45] = 0
    mask[6:34, 6:44] = 1
    mask[20, 20] = 255
    confidence = confidence_to_png(np.zeros((10, 13), np.uint8))
    palette = default_palette(2)
    row = LabelledImage("a.jpg", 40, 50, mask_to_png(mask, palette), confidence, [0, 1], [136, 1063], [0, 0], 0, 801)
    image = ExportImage(row, "a", Selection(((0, 0, 0), (1, 1, 1)), 4))
    target = Target("ours", ("ring", "blob"), ((0, 0, 0), (1, 1, 1)), 255, "/in", "/to")
    (text,) = Yolo(target).shard(0, [(image, None)]).files.values()
    mask[20, 20] = 1  # a hole without a class is filled
    assert (drawn(text.decode(), mask.shape) == mask).all()


def test_small_regions_are_left_out(output, tmp_path):
    folder = exported(output, tmp_path / "to", "yolo", min_area=20)
    for uri, mask in masks(output).items():
        wanted = 0
        for index in range(len(NAMES)):
            _, _, stats, _ = cv2.connectedComponentsWithStats((mask == index).astype(np.uint8), connectivity=8)
            wanted += int((stats[1:, cv2.CC_STAT_AREA] >= 20).sum())
        lines = (folder / "labels" / f"{uri.rpartition('.')[0]}.txt").read_text().splitlines()
        assert len(lines) == wanted
