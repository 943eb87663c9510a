"""Heads, measured: own corpus, other images, few images, few classes, absent classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from performance.tables import Row
from PIL import Image
from safetensors.numpy import load_file

from proxyclip.config import DecodeConfig
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.run_record import read_vocabulary
from proxyclip.demo import VOCABULARY_FILE
from proxyclip.demo.scenes import HELD_OUT_SEEDS, draw_scene
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.adaptation.image_sums import ImageSums
from proxyclip.models.adaptation.learn import learn
from proxyclip.models.adaptation.sample import PER_CORPUS
from proxyclip.models.adaptation.statistics import Statistics
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.features import Features
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.features import open_features
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.heads import Head
from proxyclip.vocabulary.names import Vocabulary

# Numbers of images, and of classes, that corpora are drawn with; seeds of the draws.
SIZES = (16, 32, 64, 128)
CLASSES = (4, 8)
IGNORE = 255


@dataclass(frozen=True, eq=False)
class Photograph:
    """An image, its features and its labels (H, W)."""

    uri: str
    features: Features
    label: npt.NDArray[np.uint8]


@dataclass(eq=False)
class Corpus:
    """Photographs of one output, and what its text embeddings say of each; made once for all draws."""

    vocabulary: Vocabulary
    scale: float
    photographs: list[Photograph]
    _sums: dict[str, Statistics] = field(default_factory=dict)
    _text: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def open(cls, output: str, labels: Path) -> Corpus:
        """output: with features. labels: a folder of index PNGs under the images' names."""
        features = open_features(output)
        photographs = [
            Photograph(uri, features[uri], np.asarray(Image.open(labels / f"{Path(uri).stem}.png")))
            for uri in sorted(features)
        ]
        scale = Labels.open(output).record.recipe["segmenter"]["decode"]["logit_scale"]
        return cls(read_vocabulary(Storage(output)), scale, photographs)

    @classmethod
    def of_scenes(cls, count: int) -> Corpus:
        """Drawn scenes that the demo's networks never saw, with exact labels."""
        segmenter = Segmenter.from_preset("demo")
        scenes = [(f"{seed}.jpg", draw_scene(seed)) for seed in HELD_OUT_SEEDS[:count]]
        photographs = [Photograph(uri, segmenter.encode(scene.image), scene.mask) for uri, scene in scenes]
        vocabulary = segmenter.with_embeddings(Vocabulary.from_file(VOCABULARY_FILE))
        return cls(vocabulary, segmenter.config.decode.logit_scale, photographs)

    def with_classes(self, names: Sequence[tuple[str, ...]], embeddings: npt.NDArray[np.float32]) -> Corpus:
        """The same photographs with further classes in the vocabulary."""
        own = self.vocabulary
        assert own.embeddings is not None
        queries = own.class_queries + tuple(names)
        every = np.concatenate([own.embeddings, embeddings])
        longer = Vocabulary("longer", own.class_names + tuple(each[0] for each in names), queries, embeddings=every)
        return Corpus(longer, self.scale, self.photographs)

    @cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """(images, K): which classes are labelled in which photograph."""
        found = np.zeros((len(self.photographs), self.vocabulary.num_classes), bool)
        for row, photograph in zip(found, self.photographs, strict=True):
            row[[value for value in np.unique(photograph.label) if value != IGNORE]] = True
        return found

    def head(self, images: Sequence[int], rounds: int = 2) -> Head:
        """What `proxyclip adapt` learns from some photographs."""
        return self.heads(images, rounds)[-1]

    def heads(self, images: Sequence[int], rounds: int = 2) -> list[Head]:
        """The head after each round."""
        first = self.total(images, None)
        lesson = learn(first, self.vocabulary, self.scale, {}, {})
        found = [lesson.head]
        if rounds == 2 and lesson.again:
            second = self.total(images, found[0])
            found.append(learn(first, self.vocabulary, self.scale, {}, {}, second).head)
        return found

    def total(self, images: Sequence[int], head: Head | None) -> Statistics:
        """The statistics of some photographs, by a head or by the text."""
        of, total = ImageSums(self.vocabulary, self.scale, head), None
        for index in images:
            photograph = self.photographs[index]
            if head is None:
                if photograph.uri not in self._sums:
                    self._sums[photograph.uri] = of.of(photograph.uri, photograph.features)
                found = self._sums[photograph.uri]
            else:
                found = of.of(photograph.uri, photograph.features)
            if total is None:
                total = Statistics.empty(found.num_classes, found.dim)
            total.add(found, PER_CORPUS)
        assert total is not None
        return total

    def score(self, images: Sequence[int], head: Head | None) -> Score:
        """Labels of some photographs, by a head or by the text."""
        decoder = Decoder(DecodeConfig(logit_scale=self.scale), head=head)
        confusion = ConfusionMatrix(self.vocabulary.num_classes, IGNORE)
        for index in images:
            photograph = self.photographs[index]
            found = self._text.get(photograph.uri) if head is None else None
            if found is None:
                found = decoder.labels(photograph.features, self.vocabulary).winner.numpy()
            if head is None:
                self._text[photograph.uri] = found
            confusion.add(photograph.label, found)
        return Score(confusion.counts)


@dataclass(frozen=True, eq=False)
class Score:
    """counts: (K, K + 1), true by predicted class."""

    counts: npt.NDArray[np.int64]

    @property
    def mean_iou(self) -> float:
        """In percent, over the classes that are labelled anywhere."""
        both = np.diag(self.counts)
        union = self.counts.sum(axis=1) + self.counts[:, : len(both)].sum(axis=0) - both
        occurs = self.counts.sum(axis=1) > 0
        return float(100 * (both[occurs] / union[occurs]).mean())

    @property
    def absent(self) -> float:
        """The share of the labelled pixels, in percent, that went to classes that are not labelled anywhere."""
        occurs = self.counts.sum(axis=1) > 0
        return float(100 * self.counts[:, : len(occurs)][:, ~occurs].sum() / self.counts.sum())


def own(corpus: Corpus) -> list[Row]:
    """Learned from all and from halves, used on all, on the same half and on the other one."""
    every = range(len(corpus.photographs))
    even, odd = every[::2], every[1::2]
    rows: list[Row] = []
    for learned, used in ((every, every), (even, even), (even, odd), (odd, odd), (odd, even)):
        names = {id(every): "all", id(even): "even", id(odd): "odd"}
        heads = corpus.heads(learned)
        rows.append(
            {
                "learned from": names[id(learned)],
                "used on": names[id(used)],
                "text": _figure(corpus.score(used, None)),
                "round 1": _figure(corpus.score(used, heads[0])),
                "round 2": _figure(corpus.score(used, heads[1])) if len(heads) > 1 else "not needed",
                "settings": _settings(heads[-1]),
            }
        )
    return rows


def draws(corpus: Corpus, seeds: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """Corpora of few images, and of few classes: a name and the photographs."""
    count = len(corpus.photographs)
    for size in SIZES:
        for seed in seeds:
            yield f"{size} images", np.random.default_rng((size, seed)).permutation(count)[:size].tolist()
    for classes in CLASSES:
        for seed in seeds:
            yield f"{classes} classes", _of_classes(corpus, classes, np.random.default_rng((classes, seed)))


def _of_classes(corpus: Corpus, classes: int, rng: np.random.Generator) -> list[int]:
    """The photographs that show only some classes, of which there are 16 at least."""
    while True:
        others = np.ones(corpus.vocabulary.num_classes, bool)
        others[rng.permutation(len(others))[:classes]] = False
        images = np.flatnonzero(corpus.present.any(axis=1) & ~corpus.present[:, others].any(axis=1))
        if len(images) >= 16:
            return images.tolist()


def drawn(corpus: Corpus, seeds: Sequence[int]) -> list[Row]:
    """For each kind of draw: the text, the head, and the least that a head gained."""
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for name, images in draws(corpus, seeds):
        text, head = corpus.score(images, None), corpus.score(images, corpus.head(images))
        found.setdefault(name, []).append((text.mean_iou, head.mean_iou, text.absent, head.absent))
    rows: list[Row] = []
    for name, figures in found.items():
        text, head, before, after = np.array(figures).T
        rows.append(
            {
                "corpus": name,
                "draws": str(len(figures)),
                "text": f"{text.mean():.1f}",
                "head": f"{head.mean():.1f}",
                "least gain": f"{(head - text).min():+.1f}",
                "pixels of absent classes, %": f"{before.mean():.1f} to {after.mean():.1f}",
            }
        )
    return rows


def absent(corpus: Corpus, weights: Path, seeds: Sequence[int], count: int = 16, queries: int = 8) -> list[Row]:
    """Classes that are nowhere in the corpus: runs of ImageNet's names, whose rows of the classifier are the text."""
    from timm.data import ImageNetInfo

    names, rows = ImageNetInfo().label_descriptions(), load_file(weights)["head.weight"].astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert corpus.vocabulary.embeddings is not None
    known = (rows @ corpus.vocabulary.embeddings.T).max(axis=1) > 0.999
    runs = [run for run in np.arange(1000).reshape(-1, queries) if not known[run].any()]
    every = range(len(corpus.photographs))
    table: list[Row] = []
    for seed in seeds:
        chosen = [runs[index] for index in np.random.default_rng(seed).permutation(len(runs))[:count]]
        classes = [tuple(f"{names[index]} ({index})" for index in run) for run in chosen]
        longer = corpus.with_classes(classes, rows[np.concatenate(chosen)])
        head = longer.head(every)
        text, adapted = longer.score(every, None), longer.score(every, head)
        table.append(
            {
                "further classes": f"{count}, seed {seed}",
                "text": _figure(text),
                "head": _figure(adapted),
                "pixels of absent classes, %": f"{text.absent:.1f} to {adapted.absent:.1f}",
                "of them adapted": str(int(head.adapted[corpus.vocabulary.num_classes :].sum())),
                "others not adapted": ", ".join(
                    name for name in head.fallbacks if name in corpus.vocabulary.class_names
                ),
            }
        )
    return table


def _figure(score: Score) -> str:
    return f"{score.mean_iou:.2f}"


def _settings(head: Head) -> str:
    about = head.provenance
    if "shrinkage" not in about:
        return "text"
    return f"shrinkage {about['shrinkage']:g}, trust {about['trust']:g}, like the text {about['like_the_text']:.2f}"
