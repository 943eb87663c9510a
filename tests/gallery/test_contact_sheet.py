"""Contact sheets: even tiles, and a legend of the classes that occur."""

import numpy as np
import pytest

from proxyclip.gallery.contact_sheet import Tile, contact_sheet
from proxyclip.vocabulary.palette import default_palette


def tile(height, width, label):
    image, mask = np.full((height, width, 3), 90, np.uint8), np.full((height, width), label, np.uint8)
    return Tile(image, mask, "a caption " * 30)


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
    tall = contact_sheet([Tile(image, many, "")], names, palette)
    assert tall.height > contact_sheet([Tile(image, many * 0, "")], names, palette).height + 200


def test_a_sheet_wants_tiles_and_a_name_for_every_colour():
    with pytest.raises(ValueError, match="at least one tile"):
        contact_sheet([], ["a"], default_palette(1))
    with pytest.raises(ValueError, match="2 class names but 1 colours"):
        contact_sheet([tile(4, 4, 0)], ["a", "b"], default_palette(1))
