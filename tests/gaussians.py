"""Corpora whose patches are drawn from known Gaussians, one a class, and text embeddings that are a little off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from proxyclip.config import DecodeConfig, WindowConfig
from proxyclip.dataset.features.record import FeatureRecord, begin_features
from proxyclip.dataset.features.shards import write_features
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.masks import confidence_to_png, mask_to_png
from proxyclip.dataset.rows import LabelledImage
from proxyclip.dataset.run_record import RunRecord, begin_run, write_vocabulary
from proxyclip.dataset.shards import write_shard
from proxyclip.images.listing import ImageRef
from proxyclip.models.adaptation.image_sums import ImageSums
from proxyclip.models.adaptation.learn import Lesson, learn
from proxyclip.models.adaptation.sample import PER_CORPUS
from proxyclip.models.adaptation.statistics import Statistics
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.features import DenseFeatures, EncodedFeatures
from proxyclip.models.windows import plan_windows
from proxyclip.pipeline.features import features_row
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.heads import Head
from proxyclip.vocabulary.names import Vocabulary

DIM, GRID, SCALE = 24, 8, 20.0
NAMES = ("sky", "tree", "horse", "water", "stone", "lamp")
ENCODER = {"model": {"method": "naclip", "clip": "tiny", "dtype": "float32"}, "windows": {}, "weights": {"clip": "aa"}}
WINDOWS = WindowConfig(short_side=64, crop=64, stride=64, pad_multiple=8)
RECIPE = {"segmenter": {"decode": {"logit_scale": SCALE}}, "weights": {"clip": "aa"}}


@dataclass(frozen=True)
class Drawn:
    """An image, and the class of each of its pixels."""

    uri: str
    features: DenseFeatures
    label: np.ndarray


def _rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng([7, *seed])


_BASIS = np.linalg.qr(_rng(0).normal(size=(DIM, DIM)))[0]
MEANS = _BASIS[: len(NAMES)]
# Three strong directions that have nothing to do with the classes, and that text embeddings lean into.
_NUISANCE = _BASIS[-3:]


def vocabulary(names: tuple[str, ...] = NAMES) -> Vocabulary:
    """Two queries a class."""
    lean = _rng(1).normal(size=(len(NAMES), 2, 3)) @ _NUISANCE
    embeddings = (MEANS[:, None] + 0.6 * lean).reshape(-1, DIM)[: 2 * len(names)]
    queries = tuple((name, f"a {name}") for name in names)
    return Vocabulary("gaussians", names, queries, embeddings=embeddings.astype(np.float32))


def draw(count: int, present: tuple[int, ...] = (0, 1, 2, 3, 4, 5), first: int = 0) -> list[Drawn]:
    """Images with one class at the left and another one at the right."""
    plan = plan_windows((64, 64), WINDOWS)
    images = []
    for number in range(first, first + count):
        rng = _rng(2, number)
        left, right = rng.choice(present, 2, replace=False) if len(present) > 1 else (present[0], present[0])
        cells = np.repeat([[left] * (GRID // 2) + [right] * (GRID // 2)], GRID, axis=0)
        noise = 0.7 * rng.normal(size=(GRID, GRID, 3)) @ _NUISANCE + 0.08 * rng.normal(size=(GRID, GRID, DIM))
        patches = torch.tensor(MEANS[cells] + noise, dtype=torch.float32)
        patches = patches / patches.norm(dim=-1, keepdim=True)
        features = DenseFeatures(patches[None, None], plan, torch.zeros(3, 64, 64, dtype=torch.uint8))
        images.append(Drawn(f"{number:04d}.jpg", features, cells.repeat(8, axis=0).repeat(8, axis=1)))
    return images


def sums(images: list[Drawn], words: Vocabulary, head: Head | None = None) -> Statistics:
    """The statistics of images."""
    total, of = Statistics.empty(words.num_classes, DIM), ImageSums(words, SCALE, head)
    for image in images:
        total.add(of.of(image.uri, image.features), PER_CORPUS)
    return total


def taught(images: list[Drawn], words: Vocabulary) -> Lesson:
    """What `proxyclip adapt` learns from images, in two rounds."""
    first = sums(images, words)
    lesson = learn(first, words, SCALE, ENCODER, {})
    if not lesson.again:
        return lesson
    return learn(first, words, SCALE, ENCODER, {}, sums(images, words, lesson.head))


def labels(images: list[Drawn], words: Vocabulary, head: Head | None = None) -> list[np.ndarray]:
    """The masks of images."""
    decoder = Decoder(DecodeConfig(logit_scale=SCALE), head=head)
    return [decoder.labels(image.features, words).winner.numpy() for image in images]


def accuracy(images: list[Drawn], words: Vocabulary, head: Head | None = None) -> float:
    """The share of pixels with the right label."""
    found = labels(images, words, head)
    return float(np.mean([(mask == image.label).mean() for mask, image in zip(found, images, strict=True)]))


def write_output(
    storage: Storage, images: list[Drawn], words: Vocabulary, codec: str = "exact", shard: int = 4
) -> None:
    """An output that labelled these images and kept their features."""
    begin_run(storage, RunRecord("/data", RECIPE, "fingerprint"), words.to_json())
    write_vocabulary(storage, words)
    begin_features(storage, FeatureRecord(codec, DIM, ENCODER, {"preset": "demo", "quality": "exact"}))
    manifest = Manifest(storage)
    manifest.extend_plan([ImageRef(image.uri, 10, "1") for image in images], shard)
    by_uri = {image.uri: image for image in images}
    for part in manifest.pending():
        for number, planned in manifest.read_range(part):
            some = [by_uri[each.uri] for each in planned]
            rows = [features_row(each.uri, "1", EncodedFeatures.of(each.features, codec)) for each in some]
            write_features(storage, number, rows, [])
            write_shard(storage, number, [_row(each, words) for each in some], [], words.class_names)


def _row(image: Drawn, words: Vocabulary) -> LabelledImage:
    mask = image.label.astype(np.uint8)
    classes, pixels = np.unique(mask, return_counts=True)
    confidence = confidence_to_png(np.full((16, 16), 255, np.uint8))
    png = mask_to_png(mask, words.colours)
    return LabelledImage(
        image.uri, 64, 64, png, confidence, classes.tolist(), pixels.tolist(), [1.0] * len(classes), 1.0, 0
    )
