"""Students from ProxyCLIP's masks: photographs in even places teach, those in odd places measure."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from performance.tables import Row
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from proxyclip.dataset.masks import confidence_from_png, mask_from_png
from proxyclip.dataset.reading.labels import Labels
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.student.teacher import logits_of
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.run import label
from proxyclip.pipeline.train_student.opening import open_training
from proxyclip.pipeline.train_student.options import TrainStudentOptions
from proxyclip.training.student.loop import Training
from proxyclip.training.student.settings import TrainSettings

# Share of the pixels that are ignored: the least confident ones, found without labels.
_IGNORED = 0.2


def halves(folder: Path, work: Path) -> dict[str, Path]:
    """The photographs in two folders, by their place in sorted order."""
    found = {}
    for name, start in (("learn", 0), ("measure", 1)):
        found[name] = work / name
        found[name].mkdir(parents=True, exist_ok=True)
        for path in sorted((folder / "msrc16-dev" / "images").iterdir())[start::2]:
            if not (found[name] / path.name).exists():
                shutil.copyfile(path, found[name] / path.name)
    return found


def teach(folder: Path, images: Path, output: Path) -> float:
    """Label images with ProxyCLIP (DeiT-Tiny as CLIP and as proxy); seconds, 0 if it was done."""
    options = LabelOptions(
        input=str(images),
        output=str(output),
        vocabulary=str(folder / "msrc16.json"),
        embeddings=str(folder / "msrc16.embeddings.safetensors"),
        clip=f"local-dir:{folder / 'clip-deit-tiny'}",
        proxy="deit_tiny_patch16_224",
        proxy_weights=str(folder / "vfm-deit-tiny" / "model.safetensors"),
        dtype="float32",
        shard_size=32,
    )
    began = time.monotonic()
    if not label(options).finished:
        raise RuntimeError(f"{output} is not finished; run the command again.")
    return time.monotonic() - began


def teacher_miou(output: Path, truth: Path) -> float:
    """The mIoU of an output's masks."""
    labels = Labels.open(str(output))
    matrix = ConfusionMatrix(labels.vocabulary.num_classes)
    for image in labels.images():
        matrix.add(np.asarray(Image.open(truth / f"{Path(image.uri).stem}.png")), mask_from_png(image.mask))
    return matrix.mean_iou


def least_confident(output: Path) -> float:
    """The confidence below which _IGNORED of the pixels are."""
    images = Labels.open(str(output)).images()
    values = np.concatenate([confidence_from_png(image.confidence).ravel() for image in images])
    return float(np.quantile(values, _IGNORED)) / 255


def variants(threshold: float) -> dict[str, dict[str, Any]]:
    """What is changed of the training, by name."""
    full = {"ignore_below": threshold}
    return {
        "confidence, ignore": full,
        "all pixels weigh the same": {**full, "confidence": 0.0},
        "nothing ignored": {"ignore_below": None},
        "10 % of the images": {**full, "fraction": 0.1},
        "30 % of the images": {**full, "fraction": 0.3},
    }


def rows(folder: Path, work: Path, steps: int) -> Iterator[Row]:
    """The teacher, then a row for each student; figures of the photographs in odd places."""
    parts, truth = halves(folder, work), folder / "msrc16-dev" / "labels"
    for name, images in parts.items():
        teach(folder, images, work / f"labels-{name}")
    yield {
        "masks of the other half": "ProxyCLIP, the teacher",
        "images": "-",
        "mIoU": f"{teacher_miou(work / 'labels-measure', truth):.1f}",
        "training, s": "-",
        "GFLOP": "-",
        "CPU ms": "-",
    }
    for name, changes in variants(least_confident(work / "labels-learn")).items():
        yield student(folder, work, steps, name, changes)


def student(folder: Path, work: Path, steps: int, name: str, changes: dict[str, Any]) -> Row:
    """Train one, without Ray, and measure it."""
    own = dict(changes)
    settings = TrainSettings(
        architecture="light",
        encoder="deit_tiny_patch16_224",
        size=224,
        steps=steps,
        batch_size=8,
        lr=2e-3,
        encoder_lr=0.0,
        confidence=own.pop("confidence", 1.0),
        ema=0.95,
        warmup=10,
    )
    output = work / f"student {name} {steps}"
    shutil.rmtree(output, ignore_errors=True)
    options = TrainStudentOptions(
        labels=str(work / "labels-learn"),
        output=str(output),
        settings=settings,
        encoder_weights=str(folder / "vfm-deit-tiny" / "model.safetensors"),
        val_labels=str(folder / "msrc16-dev" / "labels"),
        val_images=str(work / "measure"),
        checkpoint_every=steps,
        **own,
    )
    began = time.thread_time()
    training = Training(open_training(options).job, torch.device("cpu"))
    training.run(lambda event: None)
    seconds = time.thread_time() - began
    gflop, cost_s = cost(training)
    return {
        "masks of the other half": name,
        "images": str(len(training.learn)),
        "mIoU": f"{training.history[-1]['miou']:.1f}",
        "training, s": f"{seconds:.0f}",
        "GFLOP": f"{gflop:.2f}",
        "CPU ms": f"{1000 * cost_s:.0f}",
    }


@torch.inference_mode()
def cost(training: Training) -> tuple[float, float]:
    """GFLOP of a photograph of 320 x 213 pixels, counted by torch (1 multiply-add: 2), and seconds on one core."""
    image = torch.zeros(3, 213, 320, dtype=torch.uint8)
    network = training.ema.eval()
    with FlopCounterMode(display=False) as counter:
        logits_of(network, image, training.card)
    times = []
    for _ in range(5):
        began = time.thread_time()
        logits_of(network, image, training.card)
        times.append(time.thread_time() - began)
    return counter.get_total_flops() / 1e9, float(np.median(times))
