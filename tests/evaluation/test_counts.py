"""Counts and figures, against torchmetrics and against the dense confusion matrix."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from proxyclip.demo.scenes import CLASSES, draw_scene
from proxyclip.evaluation.boundary import boundary_distance, near_contour
from proxyclip.evaluation.confusion import confusion_matrix
from proxyclip.evaluation.counts import Tally, count_image
from proxyclip.evaluation.labels.coding import IGNORED, OUTSIDE, LabelError
from proxyclip.vocabulary.names import ignore_label


def blocks(rng, low, high, size, step):
    values = rng.integers(low, high, (-(-size[0] // step), -(-size[1] // step)))
    return values.repeat(step, 0).repeat(step, 1)[: size[0], : size[1]]


def random_pair(seed, num_classes, unlabelled=True):
    """A label with ignored pixels and a mask that is partly right; the last class occurs in neither."""
    rng = np.random.default_rng(seed)
    size = (60 + seed, 90)
    label = blocks(rng, -1, num_classes - 1, size, 9).astype(np.int32)
    mask = np.where(rng.random(size) < 0.6, label, blocks(rng, 0, num_classes - 1, size, 7))
    mask[label == IGNORED] = 0
    mask = mask.astype(np.uint16 if num_classes > 255 else np.uint8)
    if unlabelled:
        mask[5:9] = ignore_label(num_classes)
    return label, mask


def drawn_pair(seed):
    label = draw_scene(seed, (60, 80)).mask.astype(np.int32)
    mask = np.roll(label, 3, axis=1).astype(np.uint8)
    return label, mask


def tally_of(pairs, num_classes):
    tally = Tally(num_classes)
    for number, (label, mask) in enumerate(pairs):
        tally.add(f"{number}.jpg", count_image(label, mask, num_classes), range(num_classes))
    return tally


CORPORA = {
    "random, 5 classes": ([random_pair(seed, 5, unlabelled=False) for seed in range(4)], 5),
    "random, 300 classes": ([random_pair(seed, 300, unlabelled=False) for seed in range(4)], 300),
    "drawn scenes": ([drawn_pair(seed) for seed in range(3)], len(CLASSES)),
}


@pytest.mark.parametrize("name", CORPORA)
def test_figures_are_those_of_torchmetrics(name):
    pairs, num_classes = CORPORA[name]
    matrix = tally_of(pairs, num_classes).matrix
    truth = torch.cat([torch.from_numpy(label.ravel()).long() for label, _ in pairs])
    guess = torch.cat([torch.from_numpy(mask.ravel().astype(np.int64)) for _, mask in pairs])
    given = {"num_classes": num_classes, "ignore_index": IGNORED}
    counts = MulticlassConfusionMatrix(**given)(guess, truth).numpy()
    assert (matrix.counts[:, :-1] == counts).all()
    present = (counts.sum(0) + counts.sum(1)) > 0
    labelled = counts.sum(1) > 0
    assert not present.all()
    iou = 100 * MulticlassJaccardIndex(**given, average=None)(guess, truth).numpy()
    recall = 100 * MulticlassAccuracy(**given, average=None)(guess, truth).numpy()
    np.testing.assert_allclose(matrix.iou()[present], iou[present], atol=1e-4)
    assert np.isnan(matrix.iou()[~present]).all()
    np.testing.assert_allclose(matrix.accuracy()[labelled], recall[labelled], atol=1e-4)
    assert matrix.mean_iou == pytest.approx(iou[present].mean(), abs=1e-4)
    assert matrix.pixel_accuracy == pytest.approx(
        100 * float(MulticlassAccuracy(**given, average="micro")(guess, truth)), abs=1e-4
    )


@pytest.mark.parametrize("num_classes", [2, 21, 300])
def test_an_images_counts_are_those_of_the_dense_matrix_with_unlabelled_pixels_too(num_classes):
    for seed in range(3):
        label, mask = random_pair(seed, num_classes)
        tally = tally_of([(label, mask)], num_classes)
        assert (tally.matrix.counts == confusion_matrix(label, mask, num_classes, IGNORED)).all()
        assert tally.matrix.counts[:, -1].any()


def test_boundary_counts_are_those_of_each_class_alone():
    label, mask = random_pair(3, 6)
    distance = boundary_distance(*label.shape)
    near_label = near_contour((label + 1).astype(np.uint8), distance)
    near_mask = near_contour(mask.astype(np.uint16) + 1, distance)
    counts = count_image(label, mask, 6)
    assert counts.classes.tolist() == [0, 1, 2, 3, 4]
    for index, found in zip(counts.classes, counts.boundary, strict=True):
        here, there = (label == index) & near_label, (mask == index) & near_mask & (label != IGNORED)
        assert found.tolist() == [(here & there).sum(), (here | there).sum()]


def test_an_identical_mask_scores_a_hundred_everywhere():
    label, _ = drawn_pair(3)
    tally = tally_of([(label, label.astype(np.uint8))], len(CLASSES))
    assert tally.matrix.mean_iou == tally.matrix.pixel_accuracy == tally.images[0].miou == 100
    assert (tally.boundary[:, 0] == tally.boundary[:, 1]).all()


def test_a_prediction_where_nothing_is_and_nothing_is_ignored_is_a_false_alarm():
    label = np.zeros((20, 20), np.int32)
    label[:, 15:] = OUTSIDE
    matrix = tally_of([(label, np.zeros((20, 20), np.uint8))], 3).matrix
    assert matrix.iou()[0] == 75
    assert matrix.pixel_accuracy == 100
    label[:, 15:] = IGNORED
    assert tally_of([(label, np.zeros((20, 20), np.uint8))], 3).matrix.iou()[0] == 100


def test_sums_survive_json_and_their_order_does_not_matter():
    pairs, num_classes = CORPORA["drawn scenes"]
    whole = tally_of(pairs, num_classes)
    parts = [tally_of(pairs[:2], num_classes), tally_of(pairs[2:], num_classes)]
    merged = Tally(num_classes)
    for part in reversed(parts):
        merged.add_json(part.to_json())
    for one, other in ((merged.matrix.counts, whole.matrix.counts), (merged.boundary, whole.boundary)):
        assert (one == other).all()
    assert [image.miou for image in parts[0].images + parts[1].images] == [image.miou for image in whole.images]
    again = Tally(num_classes)
    again.add_json(whole.to_json())
    assert again.to_json() == whole.to_json()


def test_an_image_without_scored_pixels_has_no_figures():
    tally = tally_of([(np.full((9, 9), IGNORED, np.int32), np.zeros((9, 9), np.uint8))], 3)
    assert (tally.images[0].miou, tally.images[0].accuracy, tally.images[0].pixels) == (None, None, 0)
    assert math.isnan(tally.matrix.mean_iou)
    assert json.loads(tally.to_json())["confusion"] == []


def test_a_label_of_another_size_is_refused():
    with pytest.raises(LabelError, match=r"the label is 9 x 8 pixels \(height x width\), the image 8 x 9"):
        count_image(np.zeros((9, 8), np.int32), np.zeros((8, 9), np.uint8), 3)


def test_a_mask_with_a_class_that_does_not_exist_is_damage():
    with pytest.raises(ValueError, match="the mask has class 7, but there are 3"):
        count_image(np.zeros((9, 8), np.int32), np.full((9, 8), 7, np.uint8), 3)
