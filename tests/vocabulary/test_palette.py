"""Every class has its own colour, and masks are drawn in these colours."""

import numpy as np
import pytest

from proxyclip.vocabulary.palette import IGNORE_COLOUR, colourise, default_palette, overlay


@pytest.mark.parametrize("num_classes", [1, 2, 21, 255, 900])
def test_every_class_has_a_colour_of_its_own(num_classes):
    palette = default_palette(num_classes)
    assert palette.shape == (num_classes, 3)
    assert palette.dtype == np.uint8
    assert len(np.unique(palette, axis=0)) == num_classes


def test_a_class_keeps_its_colour_when_others_are_added():
    np.testing.assert_array_equal(default_palette(900)[:30], default_palette(30))


@pytest.mark.parametrize(("num_classes", "ignore"), [(3, 255), (300, 65535)])
def test_a_mask_takes_the_colours_of_its_classes(num_classes, ignore):
    palette = default_palette(num_classes)
    mask = np.array([[0, 2], [num_classes - 1, ignore]], np.uint8 if ignore == 255 else np.uint16)
    coloured = colourise(mask, palette, ignore)
    assert coloured.dtype == np.uint8
    np.testing.assert_array_equal(coloured[0], palette[[0, 2]])
    assert coloured[1].tolist() == [palette[-1].tolist(), list(IGNORE_COLOUR)]


def test_a_label_without_a_colour_is_named():
    with pytest.raises(ValueError, match="value 7, but there are 3 classes"):
        colourise(np.full((2, 2), 7, np.uint8), default_palette(3), 255)


def test_an_overlay_shows_image_and_colour_and_leaves_ignored_pixels_alone():
    image = np.full((20, 30, 3), 100, np.uint8)
    mask = np.full((20, 30), 255, np.uint8)
    mask[:, :15] = 1
    palette = default_palette(2)
    shown = np.asarray(overlay(image, mask, palette, alpha=0.5))
    assert (shown[:, 15:] == 100).all()
    np.testing.assert_allclose(shown[5, 5], (100 + palette[1].astype(float)) / 2, atol=1)


def test_an_overlay_wants_a_mask_of_the_size_of_its_image():
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(5, 4\)"):
        overlay(np.zeros((5, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), default_palette(1))


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_an_overlay_takes_alpha_as_a_share(alpha):
    with pytest.raises(ValueError, match=rf"alpha is {alpha}; .*0 to 1"):
        overlay(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), default_palette(1), alpha=alpha)
