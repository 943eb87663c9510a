"""coco: pycocotools reads the masks back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from exports import NAMES, exported, masks, spread_confidence

coco = pytest.importorskip("pycocotools.coco")


def read(folder, kind):
    found = coco.COCO(str(folder / "annotations" / f"{kind}.json"))
    for image in found.loadImgs(found.getImgIds()):
        yield image, [(each, found.annToMask(each)) for each in found.imgToAnns[image["id"]]], found


def test_stuff_is_the_mask(output, tmp_path):
    folder, wanted, confidence = exported(output, tmp_path / "to", "coco"), masks(output), spread_confidence(output)
    seen = set()
    for image, found_masks, found in read(folder, "stuff"):
        mask = np.full((image["height"], image["width"]), 255)
        for each, where in found_masks:
            assert (mask[where == 1] == 255).all()  # no pixel twice
            mask[where == 1] = each["category_id"] - 1
            assert each["area"] == where.sum()
            sure = confidence[image["file_name"]][where == 1].mean() / 255
            assert each["score"] == pytest.approx(sure, abs=6e-5)
        assert (mask == wanted[image["file_name"]]).all()
        assert [category["name"] for category in found.loadCats(found.getCatIds())] == NAMES
        seen.add(image["file_name"])
    assert seen == wanted.keys()


@pytest.mark.parametrize("min_area", [0, 20])
def test_instances_are_the_connected_regions(output, tmp_path, min_area):
    folder = exported(output, tmp_path / "to", "coco", min_area=min_area)
    for image, found_masks, _ in read(folder, "instances"):
        mask = masks(output)[image["file_name"]]
        wanted = []
        for index in range(len(NAMES)):
            count, numbers = cv2.connectedComponents((mask == index).astype(np.uint8), connectivity=8)
            regions = [numbers == number for number in range(1, count)]
            wanted += [(index + 1, region.tobytes()) for region in regions if region.sum() >= min_area]
        assert sorted((each["category_id"], (where == 1).tobytes()) for each, where in found_masks) == sorted(wanted)
        for each, where in found_masks:
            rows, columns = np.nonzero(where)
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert each["bbox"] == [columns.min(), rows.min(), width, height]


def test_ids_are_counted_from_one_without_gaps(output, tmp_path):
    folder = exported(output, tmp_path / "to", "coco")
    found = coco.COCO(str(folder / "annotations" / "instances.json"))
    assert sorted(found.getImgIds()) == list(range(1, 7))
    assert sorted(found.getAnnIds()) == list(range(1, len(found.anns) + 1))
