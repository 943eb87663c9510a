"""A student from training on Ray to labels of a second round."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from labelling import draw, labels
from students import small_training

from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.run_record import RecipeMismatch
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.images.reading import load_image
from proxyclip.models.student.teacher import Teacher, load_network
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.run import label
from proxyclip.pipeline.train_student.run import train_student
from proxyclip.recipes.weights import file_hash
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary


@pytest.mark.slow
def test_a_student_trains_on_two_workers_labels_resumes_and_teaches_the_next(options, one_cluster, tmp_path):
    assert label(options).finished
    checkpoint = tmp_path / "ckpt"
    trained = train_student(small_training(options.output, str(checkpoint), workers=2))
    assert trained.stopped is None
    assert trained.score["on"] == "held-out pseudo-labels"
    assert train_student(small_training(options.output, str(checkpoint), workers=2)) == trained, "nothing left to do"

    second = dataclasses.replace(
        options, output=str(tmp_path / "second"), embeddings=None, preset="student", student=str(checkpoint)
    )
    second = dataclasses.replace(second, short_side=None, crop=None, stride=None, ignore_below=0.22)
    summary = label(second)
    assert (summary.labelled, summary.failed, summary.shard_errors) == (10, 0, {})
    assert verify(Storage(second.output)).problems == []
    recipe = Labels.open(second.output).record.recipe
    assert recipe["weights"] == {"student": file_hash(checkpoint / "student.safetensors")}
    network, card = load_network(checkpoint / "student.safetensors")
    teacher, vocabulary = (
        Teacher(network, card, 0, torch.device("cpu"), torch.float32),
        Vocabulary.from_file(options.vocabulary),
    )
    for uri, mask in labels(second.output).items():
        found = teacher.decode(teacher.encode(load_image(tmp_path / "images" / uri)), vocabulary)
        assert (mask == found.winner.masked_fill(found.confidence < 0.22, 255).numpy()).mean() > 0.999, uri
    assert len(np.unique(np.concatenate([mask.ravel() for mask in labels(second.output).values()]))) > 2

    draw(tmp_path / "images", 3, first=20)  # the corpus grows: the same command labels what is new
    assert label(second).labelled == 13
    with pytest.raises(RecipeMismatch, match="short_side"):
        open_run(dataclasses.replace(second, method_settings='{"short_side": 64}'))
    (tmp_path / "others.txt").write_text("sky\ncow")
    with pytest.raises(ValueError, match='does not know "cow"'):
        open_run(dataclasses.replace(second, vocabulary=str(tmp_path / "others.txt")))
    next_round = small_training(second.output, str(tmp_path / "next"), ignore_below=0.23)
    assert train_student(next_round).stopped is None
    with pytest.raises(ValueError, match="the labels have changed"):
        train_student(small_training(options.output, str(tmp_path / "next"), ignore_below=0.23))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "student"}, "go together"),
        ({"student": "ckpt"}, "go together"),
        ({"preset": "student", "student": "nowhere"}, "no student.safetensors"),
    ],
)
def test_bad_students_are_refused(options, changes, message):
    plain = dataclasses.replace(options, embeddings=None, short_side=None, crop=None, stride=None, preset="demo")
    with pytest.raises((ValueError, OSError), match=message):
        open_run(dataclasses.replace(plain, **changes))
