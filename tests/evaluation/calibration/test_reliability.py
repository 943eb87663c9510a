"""Reliability: calibration errors that can be computed by hand, and scalings that undo a known distortion."""

from __future__ import annotations

import numpy as np
import pytest

from proxyclip.evaluation.calibration.evidence import BINS, Evidence, ImageCounts
from proxyclip.evaluation.calibration.picture import CLASSES_SHOWN, reliability_picture
from proxyclip.evaluation.calibration.reliability import (
    CONFIDENCE,
    GROUPS,
    Scaling,
    calibration_error,
    diagram,
    fit_scaling,
    reliability,
)
from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.thresholds import KEEP_NONE, Thresholds


def distorted(temperature, offset, pixels=2000):
    """Counts in which the share that is right is a known function of the confidence."""
    counted = np.full(BINS, pixels)
    return np.round(pixels * Scaling(temperature, offset)(CONFIDENCE)).astype(np.int64), counted


def test_groups_have_equal_numbers_of_pixels():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 1000, BINS)
    groups = diagram(CONFIDENCE, pixels // 2, pixels)
    assert len(groups) == GROUPS
    assert sum(group.pixels for group in groups) == pixels.sum()
    assert max(abs(group.pixels - pixels.sum() / GROUPS) for group in groups) <= pixels.max()
    assert [group.confidence for group in groups] == sorted(group.confidence for group in groups)


def test_the_calibration_error_is_the_mean_distance_of_confidence_and_precision():
    confidence, pixels = np.array([0.9, 0.5]), np.array([100, 300])
    groups = diagram(confidence, np.array([60, 150]), pixels, groups=4)
    assert calibration_error(groups) == pytest.approx((0.3 * 100 + 0.0 * 300) / 400)
    assert calibration_error([]) is None


@pytest.mark.parametrize(("temperature", "offset"), [(1.0, 0.0), (2.5, 0.0), (0.6, 0.0), (1.7, 0.9), (0.8, -1.2)])
def test_a_scaling_undoes_a_known_distortion(temperature, offset):
    right, pixels = distorted(temperature, offset)
    found = fit_scaling(right, pixels, offset=offset != 0)
    assert found.temperature == pytest.approx(temperature, rel=0.01)
    assert found.offset == pytest.approx(offset, abs=0.02)
    assert calibration_error(diagram(found(CONFIDENCE), right, pixels)) < 0.005


def test_a_scaling_of_what_is_always_right_is_finite():
    pixels = np.zeros(BINS, np.int64)
    pixels[128:] = 1000
    found = fit_scaling(pixels, pixels, offset=True)
    assert np.isfinite([found.temperature, found.offset]).all()
    assert found(CONFIDENCE[200]) > 0.99


def test_confidence_that_means_the_contrary_has_no_temperature():
    right, pixels = distorted(1.0, 0.0)
    with pytest.raises(ValueError, match="higher confidence does not mean"):
        fit_scaling(right[::-1], pixels, offset=True)


def evidence(num_classes=2, images=10):
    right, pixels = distorted(2.0, 1.0, 200)
    rows = np.arange(num_classes)
    counts = [np.tile(each, (num_classes, 1)) for each in (right, pixels)]
    return Evidence.of(num_classes, [ImageCounts(f"{number}", rows, *counts) for number in range(images)])


def test_the_report_has_errors_before_and_after():
    found = reliability(evidence(), ("sky", "tree"))
    both = found["temperature_and_offset"]
    assert found["calibration_error"] > 0.1 > 0.02 > both["calibration_error_after"]
    assert both["calibration_error_after"] < found["temperature"]["calibration_error_after"]
    assert found["classes"].keys() == {"sky", "tree"}


def picture(num_classes):
    names = [f"a class with quite a long name {index}" for index in range(num_classes)]
    vocabulary = Vocabulary.from_names(names)
    found = reliability(evidence(num_classes, 6), vocabulary.class_names)
    values = tuple((0.0, 0.5, KEEP_NONE)[index % 3] for index in range(num_classes))
    return np.asarray(reliability_picture(found, Thresholds(values), vocabulary))


def test_the_picture_has_a_panel_for_each_class_up_to_a_number():
    one, two, six, many = picture(1), picture(2), picture(6), picture(CLASSES_SHOWN + 5)
    assert one.shape == two.shape
    assert (one != two).any()
    row = len(six) - len(one)
    assert row > 0
    assert len(many) == len(one) + row * (CLASSES_SHOWN // 5 - 1)
