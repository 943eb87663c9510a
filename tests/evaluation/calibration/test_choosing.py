"""Thresholds chosen on images whose truth is known: they keep what they promise, and say when they cannot know."""

from __future__ import annotations

import numpy as np
import pytest

from proxyclip.evaluation.calibration.choosing import Rule, choose, class_evidence, cross_fit, judge, most_confident
from proxyclip.evaluation.calibration.evidence import BINS, Evidence, ImageCounts, count_image
from proxyclip.evaluation.calibration.precision import precision_bounds
from proxyclip.vocabulary.thresholds import KEEP_NONE


def image(number, classes, seed=0, pixels=4000):
    """An image whose confidences are true probabilities, but for an error that all its pixels share.

    classes: for each class, the exponent of its confidence: the chance of being right.
    """
    rng = np.random.default_rng([seed, number])
    right, counted = np.zeros((2, len(classes), BINS), np.int64)
    for row, exponent in enumerate(classes.values()):
        confidence = rng.integers(0, BINS, pixels)
        chance = np.clip((confidence / 255) ** exponent + rng.normal(0, 0.05), 0, 1)
        counted[row] = np.bincount(confidence, minlength=BINS)
        right[row] = np.bincount(confidence, rng.random(pixels) < chance, minlength=BINS)
    return ImageCounts(f"{number:03d}.jpg", np.array(list(classes)), right, counted)


def evidence(count, classes, seed=0, num_classes=3):
    return Evidence.of(num_classes, [image(number, classes, seed) for number in range(count)])


def test_pixels_are_counted_by_class_confidence_and_truth():
    label = np.array([[0, 1, -1, -2], [0, 2, 1, 1]])
    mask = np.array([[0, 0, 0, 1], [255, 2, 1, 1]], np.uint8)
    confidence = np.array([[10, 20, 30, 40], [50, 60, 70, 70]], np.uint8)
    found = count_image("a", label, mask, confidence, 3)
    assert found.classes.tolist() == [0, 1, 2]
    expected = {(0, 10): (1, 1), (0, 20): (0, 1), (1, 40): (0, 1), (1, 70): (2, 2), (2, 60): (1, 1)}
    for (row, column), (right, pixels) in expected.items():
        assert (found.right[row, column], found.pixels[row, column]) == (right, pixels)
    assert found.pixels.sum() == 6  # not the ignored pixel of each


def test_without_a_label_nothing_is_right():
    mask, confidence = np.zeros((2, 3), np.uint8), np.full((2, 3), 9, np.uint8)
    found = count_image("a", None, mask, confidence, 3)
    assert (found.right.sum(), found.pixels[0, 9]) == (0, 6)


def test_counts_do_not_depend_on_the_order_of_images():
    images = [image(number, {0: 1, 2: 2}) for number in range(4)]
    one, other = Evidence.of(3, images), Evidence.of(3, images[::-1])
    assert one.uris == other.uris
    for name in ("image", "predicted", "right", "pixels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("precision", [0.7, 0.9])
def test_new_images_have_the_precision_that_was_asked_for(precision):
    rule = Rule(precision)
    met = []
    for seed in range(20):
        chosen = choose(evidence(30, {0: 1, 1: 0.5, 2: 2}, seed), rule)
        assert chosen.bases == ["class"] * 3
        judged = judge(evidence(200, {0: 1, 1: 0.5, 2: 2}, 1000 + seed), chosen)
        found = [judged.of_class(index)[0] for index in range(3)]
        assert min(found) > precision - 0.03
        met += [each >= precision for each in found]
    assert np.mean(met) > 0.8  # asked for: 0.9, of each threshold


def test_a_better_class_keeps_more():
    chosen = choose(evidence(30, {0: 1, 1: 0.3, 2: 3}), Rule(0.9))
    assert chosen.bins[1] < chosen.bins[0] < chosen.bins[2]


def test_more_certainty_and_more_precision_keep_less():
    found = evidence(12, {0: 1, 1: 0.5, 2: 2})
    plain = judge(found, choose(found, Rule(0.8))).share
    assert judge(found, choose(found, Rule(0.8, certainty=0.95))).share < plain
    assert judge(found, choose(found, Rule(0.9))).share < plain


def test_a_class_on_few_images_takes_the_threshold_of_all_classes():
    images = [image(number, {0: 1, 1: 1} if number < 4 else {0: 1}) for number in range(20)]
    chosen = choose(Evidence.of(3, images), Rule(0.8))
    assert chosen.bases == ["class", "pooled", "pooled"]  # class 2 was never predicted
    assert chosen.bins[1] == chosen.bins[2] < BINS
    more = choose(Evidence.of(3, images), Rule(0.8, min_images=4))
    assert more.bases[1] in ("class", "none")


def test_a_class_on_few_pixels_takes_the_threshold_of_all_classes():
    images = [image(number, {0: 1}) for number in range(20)]
    few = [image(number, {1: 1}, pixels=20) for number in range(20, 30)]
    assert choose(Evidence.of(2, images + few), Rule(0.8)).bases == ["class", "pooled"]


def test_a_class_that_is_never_right_keeps_nothing():
    found = evidence(30, {0: 1, 1: 200}, num_classes=2)
    chosen = choose(found, Rule(0.9))
    assert chosen.bases[1] == "none"
    assert chosen.thresholds().values[1] == KEEP_NONE
    (_, nothing) = class_evidence(found, chosen, cross_fit(found, Rule(0.9)))
    assert (nothing.images, nothing.pixels, nothing.kept) == (0, 0, 0.0)


def test_the_cross_fit_foretells_new_images_and_the_sample_itself_does_not():
    rule, inside, fitted, new = Rule(0.9, certainty=0.5), [], [], []
    for seed in range(30):
        found = evidence(8, {0: 1, 1: 0.5, 2: 2}, seed)
        chosen = choose(found, rule)
        inside.append(judge(found, chosen).precision)
        fitted.append(cross_fit(found, rule).precision)
        new.append(judge(evidence(60, {0: 1, 1: 0.5, 2: 2}, 1000 + seed), chosen).precision)
    assert abs(np.mean(fitted) - np.mean(new)) < abs(np.mean(inside) - np.mean(new))


def test_bounds_hold_over_images_not_over_pixels():
    """Each image is right as a whole or wrong as a whole: 40 images are 40 observations, however many pixels."""
    held = []
    for seed in range(200):
        right = 1000 * (np.random.default_rng(seed).random((40, 1)) < 0.8)
        _, low, high = precision_bounds(right, np.full((40, 1), 1000), 0.8, 0.95)
        held.append(low[0] <= 0.8 <= high[0])
    assert 0.84 < np.mean(held) < 0.96  # 0.9, on both sides


def test_a_few_images_that_are_all_right_leave_doubt():
    right = np.full((3, 1), 500)
    raw, low, high = precision_bounds(right, right, 0.7, 0.8)
    assert (raw[0], high[0]) == (1, 1)
    assert low[0] < 0.9
    _, surer, _ = precision_bounds(np.full((60, 1), 500), np.full((60, 1), 500), 0.7, 0.8)
    assert surer[0] > 0.95


def test_the_most_confident_share_is_kept_of_each_class():
    found = evidence(5, {0: 1, 1: 3}, num_classes=3)
    chosen = most_confident(found, 0.3)
    for index in (0, 1):
        pixels = found.of_class(index)[1].sum(axis=0)
        assert pixels[chosen.bins[index] :].sum() >= 0.3 * pixels.sum() > pixels[chosen.bins[index] + 1 :].sum()
    assert chosen.bins[2] == 0
