"""Tiny trainings of students, in this process or as a command."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from proxyclip.pipeline.train_student.opening import open_training
from proxyclip.pipeline.train_student.options import TrainStudentOptions
from proxyclip.pipeline.train_student.run import train_student
from proxyclip.storage.store import Storage
from proxyclip.training.student.loop import Training
from proxyclip.training.student.results import write_results
from proxyclip.training.student.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"architecture": "light", "encoder": "test_vit", "size": 32, "batch_size": 2, "steps": 6, "warmup": 2}


def small_training(labels: str, output: str, settings: dict[str, object] | None = None, **changes: object):
    """The options of a training of seconds."""
    own = TrainSettings(**{**SMALL, "held_out": 0.3, **(settings or {})})
    places = {"labels": labels, "output": output, "encoder_weights": "none", "checkpoint_every": 2}
    return TrainStudentOptions(**{**places, "settings": own, **changes})


def train(options: TrainStudentOptions) -> Training:
    """Train without Ray, as one worker of it does."""
    opened = open_training(options)
    Storage(options.output).write("train.json", opened.record())
    training = Training(opened.job, torch.device("cpu"))
    training.run(lambda event: None)
    write_results(training)
    return training


if __name__ == "__main__":  # a training that a test kills: labels, output, steps, and workers if Ray is to train
    labels, output, steps, *workers = sys.argv[1:]
    made = small_training(labels, output, {"steps": int(steps)}, **({"workers": int(workers[0])} if workers else {}))
    if workers:
        assert train_student(made).stopped is None
    else:
        train(made)
