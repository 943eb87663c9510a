"""Pixels near contours, against the definition pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from proxyclip.evaluation.boundary import boundary_distance, near_contour


def by_definition(classes, distance):
    """A pixel counts if a square around it leaves the image or holds another class; 0 is no class."""
    height, width = classes.shape
    found = np.zeros((height, width), bool)
    for y, x in np.ndindex(height, width):
        top, left, bottom, right = y - distance, x - distance, y + distance, x + distance
        around = classes[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
        leaves = top < 0 or left < 0 or bottom >= height or right >= width
        found[y, x] = classes[y, x] != 0 and (leaves or bool(((around != classes[y, x]) & (around != 0)).any()))
    return found


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("distance", [1, 2, 5])
def test_pixels_near_contours_are_those_of_the_definition(distance, kind):
    rng = np.random.default_rng(distance)
    blocks = rng.integers(0, 4, (8, 10)).astype(kind)
    classes = blocks.repeat(6, 0).repeat(7, 1)
    found = near_contour(classes, distance)
    assert (found == by_definition(classes, distance)).all()
    assert found.any()
    assert not found.all()


def test_pixels_without_a_class_make_no_contour():
    classes = np.ones((40, 40), np.uint8)
    classes[:, 20:23] = 0
    assert not near_contour(classes, 2)[2:-2, 2:-2].any()
    classes[:, 23:] = 2
    found = near_contour(classes, 4)[20]
    assert np.flatnonzero(found).tolist() == [*range(4), 19, 23, *range(36, 40)]  # one class is 4 from the other


@pytest.mark.parametrize(("size", "distance"), [((375, 500), 12), ((213, 320), 8), ((10, 10), 1), ((1024, 2048), 46)])
def test_the_distance_is_two_percent_of_the_diagonal(size, distance):
    assert boundary_distance(*size) == distance
