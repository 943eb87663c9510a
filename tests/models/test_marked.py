"""Labels of people in the statistics: what they weigh, and that they correct what the text says."""

from __future__ import annotations

import numpy as np
import pytest
from gaussians import DIM, ENCODER, NAMES, SCALE, accuracy, draw, sums, taught, vocabulary

from proxyclip.models.adaptation import marked
from proxyclip.models.adaptation.fit import Moments
from proxyclip.models.adaptation.learn import learn
from proxyclip.models.adaptation.marked import marked_sums, with_marks
from proxyclip.models.adaptation.sample import PER_CORPUS
from proxyclip.models.adaptation.statistics import UNIT, Statistics


@pytest.fixture(scope="module")
def words():
    return vocabulary()


def marks(images, labels=None):
    total = Statistics.empty(len(NAMES), DIM)
    for image, label in zip(images, labels or [image.label for image in images], strict=True):
        total.add(marked_sums(image.uri, image.features, label, len(NAMES)), PER_CORPUS)
    return total


def joined(images, labelled, words, head=None):
    return with_marks(sums(images, words, head), sums(labelled, words, head), marks(labelled))


def test_a_labelled_image_weighs_its_labelled_pixels(words):
    (image,) = draw(1)
    left, right = (int(image.label[0, column]) for column in (0, -1))
    whole = marks([image])
    np.testing.assert_allclose(whole.mass.sum(axis=0)[[left, right]] * UNIT, 0.5, atol=0.04)
    assert whole.mass.sum() == whole.mass[:, [left, right]].sum()
    half = np.where(np.arange(64) < 32, image.label, -1)
    some = marks([image], [half])
    assert some.mass.sum() == some.mass[:, left].sum()
    assert some.evidence[left] * UNIT == pytest.approx(1)  # of what is labelled
    assert some.mass.sum() <= whole.mass[:, left].sum() * 1.1
    assert marks([image], [np.full((64, 64), -1)]).images.sum() == 0


def test_a_patch_is_of_the_class_that_most_of_its_pixels_have():
    (image,) = draw(1)
    label = np.zeros((64, 64), np.int32)
    label.reshape(8, 8, 8, 8)[:, :3] = 1  # three of eight rows of every patch
    found = marks([image], [label])
    assert found.mass.sum() == found.mass[:, 0].sum()


def test_labels_that_say_what_the_text_says_change_nothing(words, monkeypatch):
    monkeypatch.setattr(marked, "MOST", 1)
    images = draw(12)
    corpus, some = sums(images, words), sums(images[:4], words)
    found = with_marks(corpus, some, some)
    for name in ("images", "mass", "sums", "evidence", "shares"):
        assert (getattr(found, name) == getattr(corpus, name)).all()
    assert np.abs(found.moments - corpus.moments).max() <= 2


def test_labelled_patches_are_half_of_their_class_and_leave_the_covariance_alone(words):
    images = draw(200)
    labelled = images[:30]
    found = joined(images, labelled, words)
    others = joined(images[30:], [], words).mass.sum(axis=0)
    share = 1 - others / found.mass.sum(axis=0)
    assert (np.abs(share - 0.5) < 0.1).all()
    before, after = (np.trace(Moments.of(each).within) for each in (sums(images, words), found))
    assert after == pytest.approx(before, rel=0.1)


def test_a_few_labels_correct_names_that_the_text_confuses(words):
    confused = words.with_embeddings(words.embeddings[[0, 1, 2, 3, 6, 7, 4, 5, 8, 9, 10, 11]])  # horse and water
    images = draw(120)
    unlabelled, labelled = images[20:], images[:20]
    assert accuracy(unlabelled, words, taught(images, words).head) > 0.98
    assert accuracy(unlabelled, confused, taught(images, confused).head) < 0.75
    first = joined(images, labelled, confused)
    head = learn(first, confused, SCALE, ENCODER, {}).head
    second = joined(images, labelled, confused, head)
    head = learn(first, confused, SCALE, ENCODER, {}, second).head
    assert accuracy(unlabelled, confused, head) > 0.95
