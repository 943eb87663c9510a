"""Regions that users made: what the files mean, and what is said of a file that cannot be used."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from proxyclip.images.errors import ImageError
from proxyclip.images.regions import read_regions, regions_from_json, regions_from_png
from proxyclip.storage.store import Storage

VALUES = np.array([[7, 7, 300], [7, 0, 300]])


def png(array, mode=None):
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, "PNG")
    return buffer.getvalue()


def run_lengths(mask):
    """COCO's: column by column, zeros first."""
    flat = np.asarray(mask).T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()}


@pytest.mark.parametrize(
    "data",
    [
        png(VALUES.astype(np.uint16)),
        png((VALUES % 256).astype(np.uint8)),
        png(np.stack([VALUES % 256, VALUES // 256, 0 * VALUES], -1).astype(np.uint8)),
    ],
)
def test_pixels_of_equal_values_are_a_region(data):
    assert regions_from_png(data).tolist() == [[1, 1, 2], [1, 0, 2]]


def test_colours_that_share_channels_are_different_regions():
    colours = np.array([[[1, 2, 3], [3, 2, 1], [1, 2, 4]]], np.uint8)
    assert len(np.unique(regions_from_png(png(colours)))) == 3


def test_smaller_masks_lie_on_top_and_the_rest_has_no_region():
    large, small = np.zeros((2, 5, 7), bool)
    large[1:4, 1:6], small[2, 2:4] = True, True
    expected = np.full((5, 7), -1)
    expected[large], expected[small] = 1, 0
    for masks in ([small, large], [large, small]):
        annotations = [{"segmentation": run_lengths(mask), "area": int(mask.sum())} for mask in masks]
        for form in (annotations, {"annotations": annotations}, [run_lengths(mask) for mask in masks]):
            found = regions_from_json(json.dumps(form).encode())
            assert ((found < 0) == (expected < 0)).all()
            assert len(np.unique(found[large & ~small])) == len(np.unique(found[small])) == 1
            assert found[1, 1] != found[2, 2]
            assert sorted(np.unique(found)) == [-1, 0, 1]


def test_cocos_strings_are_read():
    mask = pytest.importorskip("pycocotools.mask")
    square = np.zeros((6, 9), np.uint8)
    square[2:5, 3:8] = 1
    encoded = mask.encode(np.asfortranarray(square))
    data = json.dumps([{"size": encoded["size"], "counts": encoded["counts"].decode()}]).encode()
    assert ((regions_from_json(data) == 0) == square).all()


def test_a_region_file_has_the_name_of_its_image(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.c.png").write_bytes(png(VALUES.astype(np.uint16)))
    found = read_regions(Storage(str(tmp_path)), "a/b.c.jpg", (2, 3))
    assert found.dtype == np.int32
    assert found.shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("other.png", png(VALUES.astype(np.uint16)), "there are no regions: neither image.png nor image.json"),
        ("image.png", png(VALUES.T.astype(np.uint16)), "image.png have 2 x 3 pixels, but the image has 3 x 2"),
        ("image.png", b"no png", "regions image.png: cannot identify"),
        ("image.png", png(VALUES.astype(np.uint16))[:50], "regions image.png"),
        ("image.json", b"[]", "there is no list of masks"),
        ("image.json", b'{"masks": 1}', "there is no list of masks"),
        ("image.json", b"[1]", "regions image.json"),
        ("image.json", b"[{", "regions image.json"),
        ("image.json", b'[{"size": [2, 3], "counts": [1, 2]}]', "add up to 3 pixels, not to 2 x 3"),
        ("image.json", b'[{"size": [2, 3], "counts": [-1, 7]}]', "regions image.json"),
    ],
)
def test_what_cannot_be_used_fails_its_image_with_a_reason(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError) as caught:
        read_regions(Storage(str(tmp_path)), "image.jpg", (2, 3))
    assert message in caught.value.reason
