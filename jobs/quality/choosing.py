"""Corrected images, measured: chosen by a rule against drawn by chance, on images that neither has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from performance.tables import Row

from proxyclip.config import DecodeConfig
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.adaptation.doubt import ImageDoubt
from proxyclip.models.adaptation.learn import learn
from proxyclip.models.adaptation.marked import marked_sums, with_marks
from proxyclip.models.adaptation.sample import PER_CORPUS
from proxyclip.models.adaptation.statistics import Statistics
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.pipeline.select.choosing import Candidates, choose
from proxyclip.pipeline.select.records import RECORDS
from proxyclip.vocabulary.heads import Head
from quality.heads import IGNORE, Corpus, Score

# From records, the number of classes and the number of images to indices.
Rule = Callable[[pa.Table, int, int], list[int]]


@dataclass(eq=False)
class Corrections:
    """Some photographs of a corpus, of which a few get their true labels."""

    corpus: Corpus
    images: Sequence[int]

    @cached_property
    def unlabelled(self) -> Head:
        """What they teach without labels."""
        return self.corpus.head(self.images)

    def taught(self, corrected: Sequence[int]) -> Head:
        """What `proxyclip adapt --labels` learns when some have labels."""
        corpus = self.corpus
        first = self._total(corrected, None)
        lesson = learn(first, corpus.vocabulary, corpus.scale, {}, {})
        if not lesson.again:
            return lesson.head
        second = self._total(corrected, lesson.head)
        return learn(first, corpus.vocabulary, corpus.scale, {}, {}, second).head

    def _total(self, corrected: Sequence[int], head: Head | None) -> Statistics:
        everything, said = (self.corpus.total(images, head) for images in (self.images, corrected))
        marked = Statistics.empty(everything.num_classes, everything.dim)
        for image in corrected:
            photograph = self.corpus.photographs[image]
            label = np.where(photograph.label == IGNORE, -1, photograph.label.astype(np.int32))
            marked.add(marked_sums(photograph.uri, photograph.features, label, everything.num_classes), PER_CORPUS)
        return with_marks(everything, said, marked)

    def counts(self, head: Head | None) -> dict[int, npt.NDArray[np.int64]]:
        """The confusion of every photograph."""
        decoder = Decoder(DecodeConfig(logit_scale=self.corpus.scale), head=head)
        found = {}
        for image in self.images:
            photograph = self.corpus.photographs[image]
            confusion = ConfusionMatrix(self.corpus.vocabulary.num_classes, IGNORE)
            confusion.add(photograph.label, decoder.labels(photograph.features, self.corpus.vocabulary).winner.numpy())
            found[image] = confusion.counts
        return found

    def records(self) -> pa.Table:
        """What `proxyclip select` knows of them."""
        corpus = self.corpus
        doubt = ImageDoubt(corpus.vocabulary, corpus.scale)
        decoder = Decoder(DecodeConfig(logit_scale=corpus.scale))
        rows = []
        for image in self.images:
            photograph = corpus.photographs[image]
            mask = decoder.labels(photograph.features, corpus.vocabulary).winner.numpy()
            classes, pixels = np.unique(mask, return_counts=True)
            rows.append(
                {
                    "uri": str(image),
                    "doubt": doubt.of(photograph.features),
                    "classes": classes.tolist(),
                    "shares": (pixels / mask.size).tolist(),
                }
            )
        return pa.Table.from_pylist(rows, RECORDS)


def as_select(table: pa.Table, num_classes: int, count: int) -> list[int]:
    """The rule of `proxyclip select`."""
    candidates = Candidates(num_classes, count)
    candidates.add(table)
    return [int(each.uri) for each in islice(choose(candidates, tuple(map(str, range(num_classes)))), count)]


def without_doubt(table: pa.Table, num_classes: int, count: int) -> list[int]:
    """The same, with the image that shows most of the class."""
    even = table.set_column(1, RECORDS.field("doubt"), pa.array(np.zeros(table.num_rows, np.float32)))
    return as_select(even, num_classes, count)


def most_in_doubt(table: pa.Table, num_classes: int, count: int) -> list[int]:
    """Those with the highest doubt."""
    return [int(uri) for uri in table.sort_by([("doubt", "descending")])["uri"].to_pylist()[:count]]


def by_chance(table: pa.Table, count: int, seed: int) -> list[int]:
    """Drawn."""
    uris = [int(uri) for uri in table["uri"].to_pylist()]
    return np.random.default_rng((20, seed)).choice(uris, count, replace=False).tolist()


RULES: dict[str, Rule] = {
    "select": as_select,
    "the same without doubt": without_doubt,
    "most in doubt": most_in_doubt,
}


def compared(corpus: Corpus, images: Sequence[int], count: int, seeds: Sequence[int]) -> Iterator[Row]:
    """A row a rule: mIoU on the images that neither the rule nor a draw chose, mean and spread over the draws."""
    some = Corrections(corpus, images)
    table = some.records()
    classes = corpus.vocabulary.num_classes
    drawn = [by_chance(table, count, seed) for seed in seeds]
    text, unlabelled = some.counts(None), some.counts(some.unlabelled)
    by_draw = [some.counts(some.taught(each)) for each in drawn]
    for name, rule in RULES.items():
        chosen = rule(table, classes, count)
        by_rule = some.counts(some.taught(chosen))
        figures = []
        for each, counts in zip(drawn, by_draw, strict=True):
            rest = [image for image in images if image not in {*chosen, *each}]
            figures.append([_mean_iou(found, rest) for found in (text, unlabelled, counts, by_rule)])
        before, none, chance, chose = np.array(figures).T
        gain = chose - chance
        yield {
            "rule": name,
            "text": f"{before.mean():.1f}",
            "no labels": f"{none.mean():.1f}",
            f"{count} by chance": _spread(chance),
            f"{count} by the rule": _spread(chose),
            "rule less chance": f"{gain.mean():+.1f} ± {gain.std(ddof=1):.1f}",
            "better in": f"{int((gain > 0).sum())} of {len(gain)} draws",
            "classes labelled": f"{int(corpus.present[list(chosen)].any(axis=0).sum())}",
            "by chance": f"{np.mean([corpus.present[each].any(axis=0).sum() for each in drawn]):.1f}",
        }


def _mean_iou(counts: dict[int, npt.NDArray[np.int64]], images: Sequence[int]) -> float:
    return Score(np.sum([counts[image] for image in images], axis=0)).mean_iou


def _spread(figures: npt.NDArray[np.float64]) -> str:
    return f"{figures.mean():.1f} ± {figures.std(ddof=1):.1f}"
