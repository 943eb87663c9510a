"""Label a benchmark from a user's own copy, score it, and compare with the published figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from proxyclip.dataset.reading.labels import Labels
from proxyclip.evaluation.benchmarks.copy import BenchmarkCopy, open_copy
from proxyclip.evaluation.benchmarks.layouts import LAYOUTS
from proxyclip.evaluation.labels.coding import Coding
from proxyclip.evaluation.labels.matching import Matching
from proxyclip.evaluation.zero_shot import unseen_classes
from proxyclip.pipeline.evaluate.options import BenchmarkOptions
from proxyclip.pipeline.evaluate.run import FOLDER, Evaluated, Scoring, score
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.run import Summary, execute
from proxyclip.recipes.benchmarks import BENCHMARKS
from proxyclip.recipes.names import look_up
from proxyclip.recipes.presets import preset
from proxyclip.storage.store import Storage

# Percentage points of mIoU within which a measured figure is the published one.
TOLERANCE = 0.7
AS_PUBLISHED, CORRECT = "as published", "correct"


@dataclass(frozen=True)
class Measured:
    """How a benchmark ended.

    published: mIoU of the preset's paper, or None. evaluated: by ignore rule; most benchmarks have only one. None if
    labelling did not finish.
    """

    benchmark: str
    preset: str
    num_images: int
    num_published: int
    labelled: Summary
    published: float | None
    evaluated: dict[str, Evaluated] | None

    @property
    def difference(self) -> float | None:
        """Measured less published mIoU, in points; None if one of them is not known."""
        report = self.evaluated[AS_PUBLISHED].report if self.evaluated else None
        if report is None or report.miou is None or self.published is None:
            return None
        return report.miou - self.published

    @property
    def is_off(self) -> bool:
        """Whether the measured figure, in two decimals, is not the published one."""
        return self.difference is not None and round(abs(self.difference), 2) > TOLERANCE

    @property
    def exit_code(self) -> int:
        """0: as published, or nothing is published. 1: not, or not finished. 3: images are missing in the figure."""
        if self.evaluated is None or any(each.exit_code == 1 for each in self.evaluated.values()):
            return 1
        if self.is_off:
            return 1
        return max(each.exit_code for each in self.evaluated.values())


def measure(options: BenchmarkOptions) -> Measured:
    """Label and score a benchmark, or go on with it. Raises ValueError or OSError if it cannot start."""
    name = options.benchmark
    look_up(BENCHMARKS, name, "benchmark")
    options = replace(options, data=Storage(options.data).uri)
    published = preset(options.preset).published_miou.get(name)
    copy = open_copy(LAYOUTS[name], options.data)
    run = open_run(options.label_options(copy.images), frozenset(copy.uris))
    assert run.vocabulary is not None
    unseen = unseen_classes(options.unseen, run.vocabulary) if options.unseen is not None else ()
    labelled = execute(run)
    result = Measured(name, options.preset, len(copy.uris), copy.layout.num_images, labelled, published, None)
    if labelled.exit_code == 1:
        return result
    labels = Labels.open(run.options.output)
    evaluated = {}
    for rule, coding in _rules(copy):
        about = {"benchmark": {"name": name, "preset": options.preset, "ignore_rule": rule, "published": published}}
        folder = FOLDER if rule == AS_PUBLISHED else f"{FOLDER}-{rule}"
        scoring = Scoring(
            copy.labels,
            Matching(f"{name}, {rule}", coding, tuple(range(labels.vocabulary.num_classes))),
            f"{labels.storage.uri.rstrip('/')}/{folder}",
            unseen,
            options.worst,
            about,
        )
        evaluated[rule] = score(labels, scoring, address=options.address, verbose=options.verbose)
    return replace(result, evaluated=evaluated)


def _rules(copy: BenchmarkCopy) -> Iterator[tuple[str, Coding]]:
    """What label values mean, by ignore rule: as the published figures count, and right where that differs."""
    yield AS_PUBLISHED, copy.form.coding
    if copy.form.correct is not None:
        yield CORRECT, copy.form.correct
