"""Students from ProxyCLIP's masks: photographs in even places teach, those in odd places measure."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from performance.tables import Row
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from proxyclip.config import SegmenterConfig
from proxyclip.dataset.masks import confidence_from_png, mask_from_png
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.run_record import read_vocabulary
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.cost import gflop_per_image
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.student.teacher import logits_of
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.run import label
from proxyclip.pipeline.train_student.opening import open_training
from proxyclip.pipeline.train_student.options import TrainStudentOptions
from proxyclip.storage.store import Storage
from proxyclip.training.student.loop import Training
from proxyclip.training.student.settings import TrainSettings

# Share of the pixels that are ignored: the least confident ones, found without labels.
_IGNORED = 0.2

# Of a usual photograph of msrc16-dev.
IMAGE_HW = (213, 320)


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


def teacher(folder: Path, images: Path, output: Path) -> LabelOptions:
    """ProxyCLIP with DeiT-Tiny as CLIP and as proxy."""
    return LabelOptions(
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
        options = teacher(folder, images, work / f"labels-{name}")
        if not label(options).finished:
            raise RuntimeError(f"{options.output} is not finished; run the command again.")
    vocabulary = read_vocabulary(Storage(options.output))
    config = open_run(options).config_in("float32")
    assert isinstance(config, SegmenterConfig)
    segmenter = Segmenter.from_config(config)
    gflop = gflop_per_image(config, IMAGE_HW)  # torch counts no kernels for CPUs
    _, cost_s = cost(lambda image: segmenter.predict(image, vocabulary))
    yield {
        "masks of the other half": "ProxyCLIP, the teacher",
        "images": "-",
        "mIoU": f"{teacher_miou(work / 'labels-measure', truth):.1f}",
        "training, s": "-",
        "GFLOP": f"{gflop:.2f}",
        "CPU ms": f"{1000 * cost_s:.0f}",
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
    network, card = training.ema.eval(), training.card
    gflop, cost_s = cost(lambda image: logits_of(network, torch.from_numpy(image).permute(2, 0, 1), card))
    return {
        "masks of the other half": name,
        "images": str(len(training.learn)),
        "mIoU": f"{training.history[-1]['miou']:.1f}",
        "training, s": f"{seconds:.0f}",
        "GFLOP": f"{gflop:.2f}",
        "CPU ms": f"{1000 * cost_s:.0f}",
    }


@torch.inference_mode()
def cost(label_image: Callable[[np.ndarray], object]) -> tuple[float, float]:
    """GFLOP of a photograph of 320 x 213 pixels, counted by torch (1 multiply-add: 2), and seconds on one core."""
    image = np.zeros((*IMAGE_HW, 3), np.uint8)
    with FlopCounterMode(display=False) as counter:
        label_image(image)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _ in range(5):
        began = time.thread_time()
        label_image(image)
        times.append(time.thread_time() - began)
    torch.set_num_threads(threads)
    return counter.get_total_flops() / 1e9, float(np.median(times))
