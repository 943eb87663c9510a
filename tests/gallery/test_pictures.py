"""Small pictures: thumbnails, masks and confidence."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from proxyclip.gallery.pictures import fitted, nearest, positions_png, small_confidence_png, thumbnail
from proxyclip.storage.store import Storage


def decoded(png):
    image = Image.open(io.BytesIO(png))
    return image.mode, np.asarray(image)


@pytest.mark.parametrize(("hw", "expected"), [((100, 50), (100, 50)), ((960, 480), (480, 240)), ((9000, 3), (480, 1))])
def test_sizes_fit_and_nothing_grows(hw, expected):
    assert fitted(hw, 480) == expected


def test_a_mask_is_sampled_at_the_centres_of_pixels():
    mask = np.arange(9, dtype=np.uint8)[:, None] * 10 + np.arange(6, dtype=np.uint8)
    assert nearest(mask, (3, 2)).tolist() == [[11, 14], [41, 44], [71, 74]]
    assert (nearest(mask, (9, 6)) == mask).all()


@pytest.mark.parametrize("wide", [False, True])
def test_numbers_survive_their_png(wide):
    most = 65536 if wide else 256
    numbers = np.random.default_rng(0).integers(0, most, (33, 20)).astype(np.uint16)
    numbers[0, :2] = 0, most - 1
    mode, pixels = decoded(positions_png(numbers, wide))
    assert mode == ("RGB" if wide else "L")  # opaque: a browser multiplies colours by alpha
    read = pixels[..., 0].astype(int) * 256 + pixels[..., 1] if wide else pixels
    assert (read == numbers).all()


def test_confidence_keeps_its_mean():
    confidence = np.random.default_rng(0).integers(0, 256, (300, 640)).astype(np.uint8)
    _, small = decoded(small_confidence_png(confidence))
    assert small.shape == (75, 160)
    assert abs(float(small.mean()) - float(confidence.mean())) < 1
    assert (decoded(small_confidence_png(confidence[:40, :60]))[1] == confidence[:40, :60]).all()


def test_a_photograph_becomes_a_small_jpeg_and_a_missing_one_a_reason(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((1600, 1200)))
    turned = Image.Exif()
    turned[0x0112] = 6  # lies on its side: the upright image has 1600 rows
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=turned)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    images = Storage(str(tmp_path))
    jpeg = thumbnail(images, "a.jpg", (1600, 1200), 480)
    small = Image.open(io.BytesIO(jpeg))
    assert (small.format, small.size) == ("JPEG", (360, 480))
    upright = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_270).resize((360, 480))
    assert np.abs(np.asarray(small, float) - np.asarray(upright, float)).mean() < 4
    assert "another one" in thumbnail(images, "a.jpg", (1200, 1600), 480)
    assert "no such file" in thumbnail(images, "gone.jpg", (10, 10), 480)
    assert "not a JPEG" in thumbnail(images, "broken.jpg", (10, 10), 480)
