"""Presence, measured: long vocabularies of which an image shows little, with and without a prior and active classes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
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
SETTINGS = [(0.0, 0), (0.25, 0), (0.5, 0), (1.0, 0), (2.0, 0), (0.0, 16), (0.0, 32), (0.0, 64), (0.5, 32), (1.0, 32)]


def padded(words: str, size: int = 847) -> Vocabulary:
    """The demo's classes, and names of what no scene shows.

    words: "ade847", other names of that vocabulary. "pairs": two of the demo's words, which its text tower has learned
    ("lemon tyre"), so that these names are hard to tell from those of the classes.
    """
    classes: list[list[str]] = [[name, *SYNONYMS.get(name, ())] for name in CLASSES]
    known = {query for queries in classes for query in queries}
    if words == "pairs":
        others = [f"{one} {two}" for one in CLASSES for two in sorted(known) if one not in two and two not in one]
    else:
        others = [
            name
            for name, queries in zip(*_names_and_queries(Vocabulary.load(words)), strict=True)
            if not known.intersection(queries)
        ]
    chosen = np.random.default_rng(0).permutation(len(others))[: size - len(classes)]
    return Vocabulary.from_names([*classes, *(others[index] for index in sorted(chosen))], name=f"demo and {words}")


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


def with_embeddings(vocabulary: Vocabulary) -> Vocabulary:
    return demo().with_embeddings(vocabulary)


def demo_vocabulary() -> Vocabulary:
    return with_embeddings(Vocabulary.from_file(VOCABULARY_FILE))


def single_thread() -> None:
    torch.set_num_threads(1)
