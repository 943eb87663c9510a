"""Score an output against labels: a pass whose receipts are counts, and a report of their sum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from proxyclip.dataset.layout import COLLECTED_FOLDER, COMMITS_FOLDER, FEATURES_FOLDER, PLAN_FOLDER, RUN
from proxyclip.dataset.masks import mask_from_png
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.passes import Ledger, PassRecord
from proxyclip.dataset.rows import ALL_KINDS, LabelledImage
from proxyclip.evaluation.counts import ImageCounts, Tally, Unscored, count_image
from proxyclip.evaluation.labels.coding import LabelError
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.evaluation.labels.matching import Matching, matching_of
from proxyclip.evaluation.report import Report, make_report
from proxyclip.evaluation.zero_shot import unseen_classes
from proxyclip.pipeline.evaluate.options import EvaluateOptions
from proxyclip.pipeline.opening import output_uri
from proxyclip.pipeline.passes.run import PassSummary, run_pass
from proxyclip.storage.store import Storage, public_uri

FOLDER = "evaluation"
# Raise when a change of the code changes the counts.
VERSION = 1
_AT_ONCE = 16


@dataclass(frozen=True)
class Evaluated:
    """How an evaluation ended. destination: where it is. report: None if shards failed."""

    destination: str
    summary: PassSummary
    report: Report | None

    @property
    def exit_code(self) -> int:
        """0: every image is scored. 1: not finished. 3: finished, but some images are not scored."""
        if self.report is None:
            return 1
        return 3 if self.report.fields["num_unscored"] or self.report.fields["num_failed"] else 0


@dataclass(frozen=True)
class ScoreShard:
    """Counts the pixels of a shard's masks and labels. source: the output."""

    source: str
    files: LabelFiles
    matching: Matching

    def __call__(self, shard: int, before: Sequence[bytes]) -> bytes:
        labels = self._labels
        tally = Tally(labels.vocabulary.num_classes)
        images = labels.read(shard)
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # labels in object stores take long to come
            for first in range(0, len(images), _AT_ONCE):
                some = images[first : first + _AT_ONCE]
                for image, counts in zip(some, pool.map(self._count, some), strict=True):
                    if isinstance(counts, Unscored):
                        tally.unscored.append(counts)
                    else:
                        tally.add(image.uri, counts, self._scored)
        return tally.to_json()

    def _count(self, image: LabelledImage) -> ImageCounts | Unscored:
        try:
            label = self.matching.coding.decode(self.files.read(image.uri))
            return count_image(label, mask_from_png(image.mask), self._labels.vocabulary.num_classes)
        except LabelError as error:
            return Unscored(image.uri, error.status, error.reason)

    @cached_property
    def _labels(self) -> Labels:
        return Labels.open(self.source)

    @cached_property
    def _scored(self) -> frozenset[int]:
        return frozenset(self.matching.scored)


@dataclass(frozen=True)
class Scoring:
    """What is scored, and how it is reported.

    destination: URI. unseen: classes of the zero-shot scores. about: more fields for the report.
    """

    files: LabelFiles
    matching: Matching
    destination: str
    unseen: tuple[int, ...] = ()
    num_worst: int = 50
    about: Mapping[str, Any] = field(default_factory=dict)


def evaluate(options: EvaluateOptions) -> Evaluated:
    """Score an output, or go on with it. Raises ValueError or OSError if it cannot start."""
    labels = Labels.open(options.output)
    vocabulary = labels.vocabulary
    matching = matching_of(
        vocabulary,
        map_file=options.map,
        names=options.label_names,
        ignore=options.ignore,
        reduce_zero_label=options.reduce_zero_label,
    )
    unseen = unseen_classes(options.unseen, vocabulary) if options.unseen is not None else ()
    files = LabelFiles(Storage(options.labels).uri, options.label_suffix, options.image_suffix)
    to = options.to or f"{labels.storage.uri.rstrip('/')}/{FOLDER}"
    scoring = Scoring(files, matching, output_uri(to), unseen, options.worst)
    return score(labels, scoring, address=options.address, concurrency=options.concurrency, verbose=options.verbose)


def score(
    labels: Labels,
    scoring: Scoring,
    *,
    address: str | None = None,
    concurrency: int | None = None,
    verbose: bool = False,
) -> Evaluated:
    """Score the committed shards that are not scored yet, and report on all of them."""
    destination = Storage(scoring.destination)
    refuse_committed_places(destination, labels.storage)
    digest = scoring.files.digest()
    if not labels.totals.labelled:
        raise ValueError(f"{public_uri(labels.storage.uri)} has no masks yet; wait until a shard is committed.")
    ledger = Ledger(destination)
    ledger.begin(PassRecord.of("evaluation", labels, _settings(scoring)))
    work = ScoreShard(labels.storage.uri, scoring.files, scoring.matching)
    summary = run_pass(
        labels,
        ledger,
        work,
        verb="scoring",
        inputs=digest,
        address=address,
        concurrency=concurrency,
        verbose=verbose,
    )
    if not summary.finished:
        return Evaluated(destination.uri, summary, None)
    tally = Tally(labels.vocabulary.num_classes)
    for _, counts in ledger.results(summary.states):
        tally.add_json(counts)
    about = {
        "source": public_uri(labels.storage.uri),
        "labels": public_uri(scoring.files.uri),
        "finished": labels.finished,
        "num_failed": labels.totals.failed,
        **scoring.about,
    }
    report = make_report(
        tally,
        labels.vocabulary,
        scoring.matching,
        about=about,
        unseen=scoring.unseen,
        num_worst=scoring.num_worst,
    )
    report.write(destination)
    return Evaluated(destination.uri, summary, report)


def refuse_committed_places(destination: Storage, output: Storage) -> None:
    """Raise ValueError if files written to `destination` would mix with what a labelling job writes."""
    folder = destination.uri.removeprefix(f"{output.uri.rstrip('/')}/").split("/")[0]
    taken = {*ALL_KINDS, PLAN_FOLDER, COMMITS_FOLDER, FEATURES_FOLDER, COLLECTED_FOLDER}
    inside = destination.uri.startswith(f"{output.uri.rstrip('/')}/") and folder in taken
    if inside or destination.exists(RUN):
        raise ValueError(
            f"--to {public_uri(destination.uri)} is a place of labelled data; give another folder, such as "
            f"{public_uri(output.uri)}/{FOLDER}."
        )


def _settings(scoring: Scoring) -> dict[str, Any]:
    """All that decides the counts. What the values mean is a hash: it can be long."""
    files, matching = scoring.files, scoring.matching
    coding = matching.coding
    values = [sorted(coding.classes.items()), sorted(coding.ignored), sorted(coding.outside), matching.scored]
    digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
    return {
        "version": VERSION,
        "labels": public_uri(files.uri),
        "label_suffix": files.suffix,
        "image_suffix": files.image_suffix,
        "values": f"{matching.rule}: {len(coding.classes)} values, {digest}",
    }
