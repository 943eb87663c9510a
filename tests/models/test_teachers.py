"""The seam for teachers: labels from maps that come one by one, and what a teacher may return."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from proxyclip.config import DecodeConfig, TeacherConfig, TeacherModel
from proxyclip.models.decoding.decode import Decoded
from proxyclip.models.teachers.running import RunningLabels
from proxyclip.models.teachers.teacher import label_image
from proxyclip.vocabulary.names import Vocabulary

WORDS = Vocabulary.from_names(["rest", "sky", "tree"], background="rest")
IMAGE = np.zeros((4, 6, 3), np.uint8)


class Fixed:
    """A teacher that gives what it is told."""

    def __init__(self, **changes):
        winner = torch.arange(24, dtype=torch.int32).reshape(4, 6) % 3
        confidence = torch.linspace(0, 1, 24).reshape(4, 6)
        self.decoded = dataclasses.replace(Decoded(winner, confidence, confidence / 2), **changes)

    def encode(self, image):
        return image.shape

    def decode(self, encoded, vocabulary):
        return self.decoded


def config(**thresholds) -> TeacherConfig:
    return TeacherConfig(TeacherModel("fixed", {}), DecodeConfig(**thresholds))


def test_maps_one_by_one_give_the_labels_of_all_together():
    maps = torch.rand(50, 7, 9, generator=torch.Generator().manual_seed(0))
    maps = (maps * 8).round() / 8  # with ties
    labels = RunningLabels((7, 9), torch.device("cpu"))
    for index, scores in enumerate(maps):
        labels.add(index, scores)
    found = labels.decoded()
    best, second = maps.topk(2, dim=0).values
    assert torch.equal(found.winner.long(), maps.argmax(0))
    assert torch.equal(found.confidence, best)
    assert torch.equal(found.margin, best - second)


def test_thresholds_are_those_of_every_method():
    mask = label_image(Fixed(), IMAGE, WORDS, config(background_threshold=0.5, ignore_below=0.25)).winner
    plain = Fixed().decoded
    assert (mask[plain.confidence < 0.25] == 255).all()
    assert (mask[(plain.confidence >= 0.25) & (plain.confidence < 0.5)] == 0).all()
    assert torch.equal(mask[plain.confidence >= 0.5], plain.winner[plain.confidence >= 0.5])
    mask = label_image(Fixed(), IMAGE, WORDS, config(thresholds=(0.0, 0.3, 0.6))).winner
    for index, threshold in enumerate((0.0, 0.3, 0.6)):
        of_class = plain.winner == index
        assert torch.equal(mask[of_class] == 255, plain.confidence[of_class] < threshold)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"winner": torch.zeros(6, 4, dtype=torch.int32)}, r"winner has shape \(6, 4\), but the image has \(4, 6\)"),
        ({"margin": torch.zeros(1, 4, 6)}, "margin has shape"),
        ({"winner": torch.zeros(4, 6)}, "torch.float32 instead of torch.int32"),
        ({"winner": torch.full((4, 6), 3, dtype=torch.int32)}, "a class from 0 to 2"),
        ({"confidence": torch.full((4, 6), float("nan"))}, "confidence must be torch.float32 from 0 to 1"),
        ({"margin": torch.full((4, 6), -0.1)}, "margin must be"),
        ({"confidence": torch.full((4, 6), 0.5, dtype=torch.float16)}, "confidence must be"),
    ],
)
def test_labels_that_make_no_sense_are_refused_with_the_method(changes, told):
    with pytest.raises(ValueError, match=f"Method fixed: .*{told}"):
        label_image(Fixed(**changes), IMAGE, WORDS, config())
