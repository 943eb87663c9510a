"""Presence, measured: long vocabularies of which an image shows little, with and without a prior and active classes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from performance.tables import Row
from PIL import Image

from proxyclip.config import DecodeConfig
from proxyclip.demo import VOCABULARY_FILE
from proxyclip.demo.scenes import CLASSES, HELD_OUT_SEEDS, SYNONYMS, draw_scene
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.features import Features
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.features import open_features
from proxyclip.vocabulary.names import Vocabulary

# Each is measured: presence, active.
SETTINGS = [(0.0, 0), (0.5, 0), (1.0, 0), (2.0, 0), (0.0, 16), (0.0, 32), (0.0, 64), (1.0, 32)]


def padded(words: Vocabulary, size: int = 847) -> Vocabulary:
    """The demo's classes, and other names of `words`, up to `size`."""
    classes: list[list[str]] = [[name, *SYNONYMS.get(name, ())] for name in CLASSES]
    known = {query for queries in classes for query in queries}
    others = [name for name, queries in zip(*_names_and_queries(words), strict=True) if not known & queries]
    chosen = np.random.default_rng(0).permutation(len(others))[: size - len(classes)]
    return Vocabulary.from_names([*classes, *(others[index] for index in sorted(chosen))], name="padded")


def _names_and_queries(vocabulary: Vocabulary) -> tuple[list[str], list[set[str]]]:
    queries: list[set[str]] = [set() for _ in vocabulary.class_names]
    for query, index in zip(vocabulary.queries, vocabulary.query_class, strict=True):
        queries[index].add(query)
    return list(vocabulary.class_names), queries


@cache
def demo() -> Segmenter:
    return Segmenter.from_preset("demo")


def demo_images(count: int, size_hw: tuple[int, int] = (336, 505)) -> Iterator[tuple[Features, np.ndarray]]:
    """Drawn scenes that the networks never saw, encoded, with exact labels."""
    for seed in HELD_OUT_SEEDS[:count]:
        scene = draw_scene(seed, size_hw)
        yield demo().encode(scene.image), scene.mask


def photographs(output: str, labels: Path, step: int) -> Iterator[tuple[Features, np.ndarray]]:
    """Every `step`-th image of an output with kept features, and its labels (index PNGs of the same name)."""
    features = open_features(output)
    for uri in sorted(features)[::step]:
        yield features[uri], np.asarray(Image.open(labels / f"{Path(uri).stem}.png"))


def one_class_per_query(vocabulary: Vocabulary) -> Vocabulary:
    """Every query is a class of its own: a long list of names."""
    names = list(vocabulary.queries)
    long = Vocabulary.from_names([f"{name} {number}" for number, name in enumerate(names)], name="long")
    assert vocabulary.embeddings is not None
    return long.with_embeddings(vocabulary.embeddings)


def measure(
    images: Iterable[tuple[Features, np.ndarray]],
    vocabulary: Vocabulary,
    num_classes: int,
    class_of: Sequence[int] | None = None,
    settings: Sequence[tuple[float, int]] = SETTINGS,
) -> list[Row]:
    """A row per setting. class_of: the class that each class of the vocabulary counts as, where it is another; the
    names of a padded vocabulary behind `num_classes` count as unlabelled.
    """
    decoder = Decoder(DecodeConfig())
    scores = {setting: ConfusionMatrix(num_classes, 255) for setting in settings}
    seconds: dict[tuple[float, int], list[float]] = {setting: [] for setting in settings}
    unlabelled = 255 if num_classes <= 255 else 65535
    for features, truth in images:
        for setting in settings:
            config = replace(decoder.config, presence=setting[0], active=setting[1])
            started = time.thread_time()
            winner = decoder.labels(features, vocabulary, config).winner.numpy()
            seconds[setting].append(time.thread_time() - started)
            if class_of is not None:
                winner = np.asarray(class_of)[winner]
            scores[setting].add(truth, np.where(winner < num_classes, winner, unlabelled))
    return [
        {
            "presence": f"{presence:g}",
            "active": str(active or "all"),
            "mIoU": f"{scores[presence, active].mean_iou:.2f}",
            "pixels right, %": f"{scores[presence, active].pixel_accuracy:.2f}",
            "decode, CPU ms": f"{1000 * float(np.median(seconds[presence, active])):.0f}",
        }
        for presence, active in settings
    ]


def tables(scenes: int, folder: Path | None, labelled: str | None, step: int) -> Iterator[tuple[str, list[Row]]]:
    """A title and rows for each vocabulary."""
    short = demo().with_embeddings(Vocabulary.from_file(VOCABULARY_FILE))
    yield f"{scenes} drawn scenes, the demo's {len(CLASSES)} names", measure(demo_images(scenes), short, len(CLASSES))
    long = demo().with_embeddings(padded(Vocabulary.load("ade847")))
    yield f"{scenes} drawn scenes, {long.num_classes} names", measure(demo_images(scenes), long, len(CLASSES))
    if folder is None or labelled is None:
        return
    words = Vocabulary.load(folder / "msrc16.json", folder / "msrc16.embeddings.safetensors")
    labels = folder / "msrc16-dev" / "labels"
    yield "photographs, 16 classes", measure(photographs(labelled, labels, step), words, words.num_classes)
    names = one_class_per_query(words)
    yield (
        f"photographs, {names.num_classes} names, each a class of its own until it is scored",
        measure(photographs(labelled, labels, step), names, words.num_classes, words.query_class.tolist()),
    )
