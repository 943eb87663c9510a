"""Confusion counts against slow definitions, and the figures against small cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from proxyclip.evaluation.confusion import ConfusionMatrix, confusion_matrix, reduce_zero_label


def scored(label: list[int], prediction: list[int], num_classes: int, **options: bool) -> ConfusionMatrix:
    matrix = ConfusionMatrix(num_classes, **options)
    matrix.add(np.array(label, np.uint8), np.array(prediction, np.uint8))
    return matrix


@pytest.mark.parametrize(("num_classes", "unlabelled"), [(1, 255), (4, 255), (255, 255), (256, 65535), (300, 65535)])
def test_counts_are_those_of_a_loop_over_pixels(num_classes: int, unlabelled: int) -> None:
    random = np.random.default_rng(num_classes)
    values = np.array([*range(num_classes), unlabelled], np.uint16)
    label, prediction = random.choice(values, (2, 40, 30))
    expected = np.zeros((num_classes, num_classes + 1), np.int64)
    for true, predicted in zip(label.flat, prediction.flat, strict=True):
        if true != unlabelled:
            expected[true, min(int(predicted), num_classes)] += 1
    counts = confusion_matrix(label, prediction, num_classes)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, expected)


def test_a_perfect_prediction_scores_100() -> None:
    matrix = scored([0, 1, 2, 2], [0, 1, 2, 2], 3)
    assert matrix.mean_iou == matrix.mean_accuracy == matrix.pixel_accuracy == 100


def test_figures_follow_their_definitions() -> None:
    matrix = scored([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], 2)
    assert matrix.iou() == pytest.approx([50, 100 / 3])
    assert matrix.accuracy() == pytest.approx([200 / 3, 50])
    assert matrix.mean_iou == pytest.approx((50 + 100 / 3) / 2)
    assert matrix.mean_accuracy == pytest.approx((200 / 3 + 50) / 2)
    assert matrix.pixel_accuracy == pytest.approx(60)


def test_a_class_in_neither_labels_nor_predictions_is_left_out_of_the_mean() -> None:
    matrix = scored([0, 1], [0, 1], 3)
    assert np.isnan(matrix.iou()[2])
    assert matrix.mean_iou == 100


def test_a_class_only_predicted_lowers_miou_but_not_mean_accuracy() -> None:
    matrix = scored([0, 0, 1], [0, 0, 2], 3)
    assert matrix.iou() == pytest.approx([100, 0, 0])
    assert matrix.mean_accuracy == pytest.approx(50)


def test_pixels_without_a_label_do_not_count_whatever_is_predicted() -> None:
    assert np.array_equal(scored([0, 255, 255], [0, 1, 255], 2).counts, [[1, 0, 0], [0, 0, 0]])


def test_an_unlabelled_prediction_is_a_miss_for_its_class_and_a_false_alarm_for_none() -> None:
    matrix = scored([0, 0, 1], [0, 255, 1], 2)
    assert matrix.iou() == pytest.approx([50, 100])
    assert matrix.pixel_accuracy == pytest.approx(200 / 3)


def test_class_255_counts_when_there_are_more_than_255_classes() -> None:
    label = np.array([255, 65535], np.uint16)
    assert confusion_matrix(label, label, 300)[255, 255] == 1
    assert confusion_matrix(label, label, 300).sum() == 1


def test_another_ignore_value_holds_for_labels_only() -> None:
    label, prediction = np.array([255, 1, 1], np.uint16), np.array([1, 255, 65535], np.uint16)
    counts = confusion_matrix(label, prediction, 300, ignore=255)
    assert counts[1, 255] == counts[1, 300] == 1
    assert counts.sum() == 2


def test_without_pixels_every_figure_is_nan() -> None:
    matrix = ConfusionMatrix(2)
    assert all(map(math.isnan, [matrix.mean_iou, matrix.mean_accuracy, matrix.pixel_accuracy]))


def test_order_and_partition_of_the_images_do_not_matter() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 5, (6, 2, 9, 7))
    whole, first, second = ConfusionMatrix(5), ConfusionMatrix(5), ConfusionMatrix(5)
    for index, (label, prediction) in enumerate(images):
        whole.add(label, prediction)
        (first if index % 2 else second).add(label, prediction)
    second.merge(first)
    assert np.array_equal(second.counts, whole.counts)
    assert np.array_equal(confusion_matrix(images[:, 0], images[:, 1], 5), whole.counts)


def test_sums_over_pixels_are_the_papers_figures_not_means_over_images() -> None:
    matrix = scored([0] * 9, [0] * 9, 2)
    matrix.add(np.array([0]), np.array([1]))
    assert matrix.iou()[0] == pytest.approx(90)


def test_reduce_zero_label_shifts_classes_and_drops_zero() -> None:
    label = np.array([[0, 1, 150, 255]], np.uint8)
    reduced = reduce_zero_label(label)
    assert reduced.dtype == np.uint8
    assert reduced.tolist() == [[255, 0, 149, 255]]
    assert label.tolist() == [[0, 1, 150, 255]]
    assert np.array_equal(scored([0, 1, 2], [0, 0, 0], 2, reduce_zero_label=True).counts, [[1, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    ("label", "prediction", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"label has shape \(2, 3\), prediction \(3, 2\); resize"),
        (np.zeros(2), np.zeros(2, int), "label has type float64; give integers"),
        (np.zeros(2, int), np.zeros(2, bool), "prediction has type bool; give integers"),
        (np.array([3]), np.array([0]), r"label holds the value 3; classes are 0\.\.2, and 255 is ignore"),
        (np.array([-1]), np.array([0]), "label holds the value -1"),
        (np.array([0]), np.array([254]), r"prediction holds the value 254; classes are 0\.\.2, and 255 is ignore"),
        (np.array([0]), np.array([-1]), "prediction holds the value -1"),
    ],
)
def test_bad_input_is_refused(label: np.ndarray, prediction: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(label, prediction, 3)


def test_a_prediction_of_as_many_as_the_classes_is_not_taken_for_unlabelled() -> None:
    with pytest.raises(ValueError, match="prediction holds the value 3"):
        confusion_matrix(np.array([0]), np.array([3]), 3)


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_classes is 0; give 1 or more"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match="3 classes cannot be added to 2; use one vocabulary"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))
    with pytest.raises(ValueError, match="label has type uint8, which cannot hold the ignore value 65535"):
        reduce_zero_label(np.zeros(1, np.uint8), 65535)
    with pytest.raises(ValueError, match="label has type float64"):
        reduce_zero_label(np.zeros(1))
