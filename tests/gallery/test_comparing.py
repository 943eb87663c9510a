"""What changed from one output to another."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from proxyclip.dataset.reading.labels import Labels
from proxyclip.gallery.comparing import Other, transitions


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (40, 30)])
@pytest.mark.parametrize("most", [2, 65536])
def test_transitions_count_every_pixel_once(shape, most):
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, most, (2, *shape)).astype(np.uint16)
    assert transitions(before, after) == Counter(zip(before.ravel().tolist(), after.ravel().tolist(), strict=True))


def test_images_of_another_plan_are_found_by_their_uri(corpus):
    uris = [f"{number:03d}.jpg" for number in range(20)]
    corpus.label("one", uris, ["sky", "tree"], draw=False)
    other = Labels.open(corpus.label("two", uris[5:], ["sky", "tree", "horse"], draw=False))
    found = Other(other, uris[:8])
    assert len(found) == 3
    assert found.get("004.jpg") is None
    assert found.get("006.jpg") == next(image for image in other.images() if image.uri == "006.jpg")
