"""CLIP-RC, trained on labels of 12 classes, on photographs it has not seen; beside methods that need no training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from performance.tables import Row
from PIL import Image

from proxyclip.config import ModelConfig, SegmenterConfig
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.evaluation.zero_shot import zero_shot
from proxyclip.models.segmenter import Segmenter
from proxyclip.training.cliprc import run
from proxyclip.training.cliprc.opening import open_training
from proxyclip.training.cliprc.options import TrainCliprcOptions
from proxyclip.vocabulary.names import Vocabulary

SPLITS, UNSEEN = 3, 4
METHODS = ("maskclip", "clearclip", "proxyclip")
# What is changed in a training of each name.
VARIANTS: dict[str, dict[str, Any]] = {
    "inductive": {},
    "transductive": {"mode": "transductive"},
    "fully": {"mode": "fully"},
    "bridge trained": {"frozen_bridge": False},
    "no decay on norms": {"decay_norms": False},
    "ignored pixels left out": {"ignored_are_negatives": False},
}


@dataclass(frozen=True)
class Bench:
    """folder: the photographs, the vocabulary and DeiT-Tiny as CLIP and as proxy. work: for trainings, which go on."""

    folder: Path
    work: Path
    iterations: int
    batch: int
    image_px: int
    lr: float

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.folder / "msrc16.json", self.folder / "msrc16.embeddings.safetensors")

    def unseen(self, split: int) -> tuple[int, ...]:
        """The split-th four classes of a fixed shuffle."""
        order = np.random.default_rng(0).permutation(self.vocabulary.num_classes)
        return tuple(sorted(order[UNSEEN * split : UNSEEN * (split + 1)].tolist()))

    def half(self, rest: int) -> Path:
        """A folder with links to the even (0: to learn from) or odd (1: to measure on) photographs, by name."""
        target = self.work / ("odd" if rest else "even")
        for kind in ("images", "labels"):
            (target / kind).mkdir(parents=True, exist_ok=True)
            for path in sorted((self.folder / "msrc16-dev" / kind).iterdir())[rest::2]:
                link = target / kind / path.name
                if not link.exists():
                    link.symlink_to(path.resolve())
        return target

    def trained(self, name: str, split: int) -> dict[str, Any]:
        """The scores of a training, which is run if it has not been."""
        vocabulary, learn, measure = self.vocabulary, self.half(0), self.half(1)
        settings = {
            "labels": str(learn / "labels"),
            "images": str(learn / "images"),
            "output": str(self.work / f"{name.replace(' ', '-')}-{split}"),
            "vocabulary": str(self.folder / "msrc16.json"),
            "embeddings": str(self.folder / "msrc16.embeddings.safetensors"),
            "unseen": ";".join(vocabulary.class_names[index] for index in self.unseen(split)),
            "clip": f"local-dir:{self.folder / 'clip-deit-tiny'}",
            "iterations": self.iterations,
            "batch": self.batch,
            "image_px": self.image_px,
            "lr": self.lr,
            "warmup": self.iterations // 10,
            "save_every": max(self.iterations // 10, 1),
            "score_images": str(measure / "images"),
            "score_labels": str(measure / "labels"),
            "workers": 0,
            **VARIANTS[name],
        }
        opened = open_training(TrainCliprcOptions(**settings))
        found = run.execute(opened, lambda line: print(f"{name}, split {split}: {line}", flush=True))
        assert found is not None
        return found

    def training_free(self, method: str) -> ConfusionMatrix:
        """The same photographs by a method that needs no training, at its defaults."""
        path = self.work / f"{method}.json"
        vocabulary, counts = self.vocabulary, ConfusionMatrix(self.vocabulary.num_classes)
        if path.exists():
            counts.counts = np.array(json.loads(path.read_text()))
            return counts
        model = ModelConfig(
            method=method,
            clip=f"local-dir:{self.folder / 'clip-deit-tiny'}",
            proxy="deit_tiny_patch16_224",
            proxy_weights=str(self.folder / "vfm-deit-tiny" / "model.safetensors"),
        )
        segmenter, held_out = Segmenter.from_config(SegmenterConfig(model)), self.half(1)
        for image in sorted((held_out / "images").iterdir()):
            label = np.asarray(Image.open(held_out / "labels" / f"{image.stem}.png"))
            counts.add(label, segmenter.predict(image, vocabulary).mask)
        path.write_text(json.dumps(counts.counts.tolist()))
        return counts


def rows(bench: Bench, methods: tuple[str, ...], variants: tuple[str, ...], splits: tuple[int, ...]) -> Iterator[Row]:
    """One for each split and method or variant."""
    vocabulary = bench.vocabulary
    for split in splits:
        unseen = bench.unseen(split)
        for name in variants:
            scores = bench.trained(name, split)
            figures = tuple(scores[key] for key in ("pixel_accuracy", "miou_seen", "miou_unseen", "harmonic"))
            yield _row(split, tuple(scores["unseen"]), f"CLIP-RC, {name}", figures)
        for method in methods:
            counts = bench.training_free(method)
            found = zero_shot(counts.iou(), range(vocabulary.num_classes), unseen, vocabulary)
            measured = counts.pixel_accuracy, found.miou_seen, found.miou_unseen, found.harmonic
            yield _row(split, found.unseen, method, measured)


def _row(split: int, unseen: tuple[str, ...], name: str, figures: tuple[float | None, ...]) -> Row:
    heads = ("pAcc", "seen", "unseen", "harmonic")
    found = {head: "-" if value is None else f"{value:.1f}" for head, value in zip(heads, figures, strict=True)}
    return {"split": str(split), "unseen classes": ", ".join(unseen), "method": name, **found}
