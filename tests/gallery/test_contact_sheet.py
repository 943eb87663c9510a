import numpy as np
import pytest

from proxyclip.gallery.contact_sheet import contact_sheet
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
    with pytest.raises(ValueError, match="label 7 found, one of 3 classes"):
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


def tile(height, width, label):
    return np.full((height, width, 3), 90, np.uint8), np.full((height, width), label, np.uint8), "a caption " * 30


def test_a_sheet_has_even_tiles_whatever_the_sizes_of_its_images():
    names, palette = [f"class {i}" for i in range(30)], default_palette(30)
    sizes = [(300, 400), (400, 30), (2, 900), (1, 1), (999, 1000)]
    sheet = contact_sheet([tile(h, w, i) for i, (h, w) in enumerate(sizes)], names, palette)
    same = contact_sheet([tile(270, 360, i) for i in range(5)], names, palette)
    assert sheet.size == same.size
    assert sheet.mode == "RGB"


def test_the_legend_names_the_classes_that_occur_and_no_others():
    names, palette = ["sky", "tree", "horse"], default_palette(3)
    colours = {tuple(c) for c in np.asarray(contact_sheet([tile(30, 40, 1)], names, palette)).reshape(-1, 3).tolist()}
    assert tuple(palette[1].tolist()) in colours
    assert tuple(palette[0].tolist()) not in colours


def test_many_classes_wrap_the_legend():
    names, palette = [f"a rather long name {i}" for i in range(60)], default_palette(60)
    many = np.arange(60, dtype=np.uint8).reshape(6, 10).repeat(10, 0).repeat(10, 1)
    image = np.zeros((60, 100, 3), np.uint8)
    tall = contact_sheet([(image, many, "")], names, palette)
    assert tall.height > contact_sheet([(image, many * 0, "")], names, palette).height + 200


def test_a_sheet_wants_tiles_and_a_name_for_every_colour():
    with pytest.raises(ValueError, match="no tiles"):
        contact_sheet([], ["a"], default_palette(1))
    with pytest.raises(ValueError, match="2 class names but 1 colours"):
        contact_sheet([tile(4, 4, 0)], ["a", "b"], default_palette(1))
