import io

import numpy as np
import pytest
from PIL import Image

from proxyclip.dataset.masks import confidence_from_png, confidence_to_png, mask_from_png, mask_to_png
from proxyclip.vocabulary.names import ignore_label
from proxyclip.vocabulary.palette import IGNORE_COLOUR, default_palette


def a_mask(num_classes, height=70, width=90):
    rng = np.random.default_rng(num_classes)
    labels = np.append(np.arange(num_classes), ignore_label(num_classes))
    mask = rng.choice(labels, (height, width))
    mask.reshape(-1)[: len(labels)] = labels  # every label at least once
    return mask.astype(np.uint8 if num_classes <= 255 else np.uint16)


@pytest.mark.parametrize("num_classes", [1, 2, 16, 255, 256, 900])
def test_a_mask_comes_back_as_it_was(num_classes):
    mask = a_mask(num_classes)
    decoded = mask_from_png(mask_to_png(mask, default_palette(num_classes)))
    assert decoded.dtype == mask.dtype
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize(
    "mask", [np.zeros((1, 1), np.uint8), np.full((3, 5), 255, np.uint8), np.ones((4, 1), np.int64)]
)
def test_small_flat_and_wider_typed_masks_come_back(mask):
    np.testing.assert_array_equal(mask_from_png(mask_to_png(mask, default_palette(2))), mask)


@pytest.mark.parametrize("num_classes", [2, 300])
def test_the_same_mask_gives_the_same_bytes(num_classes):
    palette = default_palette(num_classes)
    assert mask_to_png(a_mask(num_classes), palette) == mask_to_png(a_mask(num_classes).astype(np.int32), palette)


def test_any_viewer_shows_the_colours_of_the_classes():
    palette = default_palette(5)
    with Image.open(io.BytesIO(mask_to_png(np.array([[3, 255]], np.uint8), palette))) as image:
        assert image.mode == "P"
        assert np.asarray(image.convert("RGB")).tolist() == [[palette[3].tolist(), list(IGNORE_COLOUR)]]


@pytest.mark.parametrize(("label", "num_classes"), [(2, 2), (254, 254), (-1, 2), (256, 255), (255, 300 - 50)])
def test_a_label_that_is_no_class_is_refused_unless_it_is_ignore(label, num_classes):
    mask = np.full((2, 2), label, np.int32)
    if label == ignore_label(num_classes):
        assert (mask_from_png(mask_to_png(mask, default_palette(num_classes))) == label).all()
    else:
        with pytest.raises(ValueError, match=f"label {label} is neither a class"):
            mask_to_png(mask, default_palette(num_classes))


@pytest.mark.parametrize("mask", [np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2)), np.zeros((0, 2), np.uint8)])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match="give integers"):
        mask_to_png(mask, default_palette(2))


@pytest.mark.parametrize("num_classes", [0, 65536])
def test_class_counts_without_a_label_to_spare_are_refused(num_classes):
    with pytest.raises(ValueError, match=f"{num_classes} classes"):
        mask_to_png(np.zeros((2, 2), np.uint16), np.zeros((num_classes, 3), np.uint8))


def test_confidence_comes_back_as_it_was():
    confidence = np.random.default_rng(0).integers(0, 256, (33, 44), np.uint8)
    np.testing.assert_array_equal(confidence_from_png(confidence_to_png(confidence)), confidence)
    with pytest.raises(ValueError, match="float64"):
        confidence_to_png(confidence / 255)


def test_bytes_that_are_no_mask_are_refused():
    data = mask_to_png(a_mask(20), default_palette(20))
    for broken in (b"", b"text", data[: len(data) // 2]):
        with pytest.raises(ValueError, match="not a complete PNG"):
            mask_from_png(broken)
    with pytest.raises(ValueError, match="mode P"):
        confidence_from_png(data)
