"""Which images a gallery shows, and what it says of all of them."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from proxyclip.dataset.reading.labels import Labels
from proxyclip.gallery import sampling
from proxyclip.gallery.sampling import BINS, survey

NAMES = ["sky", "tree", "horse", "lynx"]
URIS = [f"{number:03d}.jpg" for number in range(60)]


@pytest.fixture
def labels(corpus):
    return Labels.open(corpus.label("labels", URIS, NAMES, draw=False))


def uris(found):
    return [uri for shard in found.chosen.values() for uri in shard]


def test_a_small_output_is_shown_whole(labels):
    assert uris(survey(labels, 60, 0)) == URIS


def test_the_seed_and_nothing_else_decides(labels, monkeypatch):
    found = uris(survey(labels, 20, 0))
    assert len(found) == 20
    assert found != uris(survey(labels, 20, 1))
    monkeypatch.setattr(sampling, "_PRUNE_ABOVE", 1)
    assert found == uris(survey(labels, 20, 0))


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_are_seen(labels, seed):
    rare = [uri for number, uri in enumerate(URIS) if number % 10 == 3]
    assert len(rare) == 6
    found = set(uris(survey(labels, 12, seed)))
    assert len(found & set(rare)) >= 1
    assert len(set(uris(survey(labels, 40, seed))) & set(rare)) >= 4


def test_half_is_drawn_by_chance(labels):
    """Over many seeds, an image without rare classes appears about as often as another."""
    often = dict.fromkeys(URIS, 0)
    for seed in range(80):
        for uri in uris(survey(labels, 20, seed)):
            often[uri] += 1
    common = [count for number, (_, count) in enumerate(often.items()) if number % 10 != 3]
    assert min(common) > 8
    assert max(common) < 55


def test_images_that_must_be_shown_are_shown(labels):
    wanted = ["017.jpg", "055.jpg", "not there.jpg"]
    assert {"017.jpg", "055.jpg"} <= set(uris(survey(labels, 8, 0, wanted)))


def test_classes_are_those_of_class_stats(labels):
    found = survey(labels, 5, 0)
    stats = pq.read_table(f"{labels.storage.uri}/class_stats.parquet").to_pylist()
    assert found.num_images == 60
    assert sum(found.histogram) == 60
    assert len(found.classes) == len(stats) == len(NAMES)
    for mine, theirs in zip(found.classes, stats, strict=True):
        assert (mine.index, mine.images, mine.pixels) == (theirs["class"], theirs["images"], theirs["pixels"])
        assert mine.share == pytest.approx(theirs["share"])
        assert mine.mean_confidence == pytest.approx(theirs["mean_confidence"])
        assert len(mine.histogram) == BINS
        assert sum(mine.histogram) == mine.images


def test_histograms_count_images_by_confidence(labels):
    found = survey(labels, 5, 0)
    confidence = [image.mean_confidence for image in labels.images()]
    expected = [sum(int(value * BINS) == each for value in confidence) for each in range(BINS)]
    assert found.histogram == expected
