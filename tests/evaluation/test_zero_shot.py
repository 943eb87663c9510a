"""Zero-shot scores, against the published rows of CLIP-RC and against a sum by hand."""

from __future__ import annotations

import numpy as np
import pytest

from proxyclip.evaluation.zero_shot import unseen_classes, zero_shot
from proxyclip.vocabulary.names import Vocabulary

VOC = Vocabulary.from_name("voc20")


def test_the_usual_splits():
    named = [VOC.class_names[index] for index in unseen_classes("voc20", VOC)]
    assert named == ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]
    stuff = Vocabulary.from_name("coco_stuff")
    unseen = unseen_classes("coco_stuff", stuff)
    assert len(unseen) == 15
    assert {"cow", "suitcase", "wall-concrete", "playingfield"} <= {stuff.class_names[index] for index in unseen}


def test_names_come_from_the_command_line_or_from_a_file(tmp_path):
    (tmp_path / "unseen.txt").write_text("Sheep\n\ntrain\n")
    assert unseen_classes("train, SHEEP", VOC) == unseen_classes(str(tmp_path / "unseen.txt"), VOC) == (16, 18)
    with pytest.raises(ValueError, match="--unseen train,lion: lion: not classes of the output"):
        unseen_classes("train,lion", VOC)
    with pytest.raises(ValueError, match="there is no name"):
        unseen_classes(",", VOC)


def test_scores_are_means_over_the_groups_and_their_harmonic_mean():
    iou = np.full(20, 90.0)
    iou[15:] = [80, 70, 60, np.nan, 50]
    iou[3] = np.nan
    found = zero_shot(iou, range(20), unseen_classes("voc20", VOC), VOC)
    assert (found.miou_seen, found.miou_unseen) == (90, 65)
    assert found.harmonic == pytest.approx(2 / (1 / 90 + 1 / 65))


@pytest.mark.parametrize(("seen", "unseen", "harmonic"), [(0.0, 0.0, 0.0), (np.nan, 5.0, None)])
def test_scores_of_nothing(seen, unseen, harmonic):
    vocabulary = Vocabulary.from_names(["a", "b"])
    assert zero_shot(np.array([seen, unseen]), range(2), (1,), vocabulary).harmonic == harmonic
