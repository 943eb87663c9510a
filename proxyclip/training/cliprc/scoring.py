"""How good is a CLIP-RC on labelled photographs? Pixel accuracy, mIoU of seen and unseen classes, harmonic mean."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.evaluation.counts import number
from proxyclip.evaluation.zero_shot import zero_shot
from proxyclip.models.cliprc.checkpoint import ClipRC
from proxyclip.models.cliprc.teacher import Settings, Teacher
from proxyclip.training.examples import Examples
from proxyclip.training.processes import Processes
from proxyclip.vocabulary.names import Vocabulary


def scored(
    model: ClipRC, examples: Examples, vocabulary: Vocabulary, processes: Processes, device: torch.device
) -> ConfusionMatrix:
    """Label photographs with all classes, as `proxyclip label --method cliprc` does, and count; shared by processes."""
    teacher = Teacher(model, Settings(), device=device)
    counts = ConfusionMatrix(vocabulary.num_classes, ignore=-1)
    for index in range(processes.place.rank, len(examples), processes.place.world_size):
        pixels, label = examples.read(index)
        counts.add(label, teacher.decode(teacher.encode(pixels), vocabulary).winner.cpu().numpy())
    counts.counts = processes.sum(torch.from_numpy(counts.counts).to(device)).cpu().numpy()
    return counts


def figures(counts: ConfusionMatrix, unseen: tuple[int, ...], vocabulary: Vocabulary) -> dict[str, Any]:
    """In percent; null where nothing counts."""
    iou = counts.iou()
    split = zero_shot(iou, range(vocabulary.num_classes), unseen, vocabulary)
    each = dict(zip(vocabulary.class_names, (number(value) for value in iou), strict=True))
    return {
        "pixel_accuracy": number(counts.pixel_accuracy),
        "miou": number(counts.mean_iou),
        **dataclasses.asdict(split),
        "iou": each,
    }
