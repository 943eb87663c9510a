"""Label a corpus: open the run, execute it on Ray, say how it ended."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol

from proxyclip.config import Dtype, RunConfig
from proxyclip.dataset.features.collected import begin_collecting
from proxyclip.dataset.features.record import begin_features
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.plan import ShardRange
from proxyclip.dataset.run_record import begin_run, write_embeddings, write_head
from proxyclip.dataset.segments import Compaction
from proxyclip.pipeline.opening import Run, open_run
from proxyclip.pipeline.options import BEST, LabelOptions, allowed_failures
from proxyclip.pipeline.progress import CommitLog, RunProgress
from proxyclip.pipeline.stages.write import Receipt
from proxyclip.recipes.names import look_up
from proxyclip.recipes.quality import QUALITIES
from proxyclip.storage.retry import count_retries

logger = logging.getLogger(__name__)

# After so many failed shards in a row a run stops: then the fault is not the shards', and each may cost a minute.
ERRORS_IN_A_ROW = 20


@dataclass
class Summary:
    """How a run ended.

    labelled, failed: images with a mask and without one, over all runs on this output. shard_errors: by shard, of
    this run. stopped: why this run stopped early. retries: storage requests of this run that were sent again.
    """

    images: int = 0
    labelled: int = 0
    failed: int = 0
    shards: int = 0
    committed: int = 0
    shard_errors: dict[int, str] = field(default_factory=dict)
    stopped: str | None = None
    failures_allowed: bool = False
    retries: int = 0

    @property
    def finished(self) -> bool:
        """Whether every planned shard is committed."""
        return self.committed == self.shards

    @property
    def exit_code(self) -> int:
        """0: all images are labelled. 1: not finished. 3: finished with failed images (0 if they are allowed)."""
        if self.stopped or not self.finished:
            return 1
        return 3 if self.failed and not self.failures_allowed else 0


class Runner(Protocol):
    """What labels shards: `runner.RayRunner`, or a test's stand-in. retries: those that no receipt counts."""

    retries: int

    def dtype(self, asked: Dtype | None) -> Dtype:
        """The precision for the machines: what is asked for, or what suits them."""

    def label(self, config: RunConfig, pending: list[ShardRange]) -> Iterator[Receipt]:
        """Label and commit the shards; a receipt for each."""

    def close(self) -> None:
        """Give back what was taken."""


def label(options: LabelOptions) -> Summary:
    """Label a corpus, or continue a run that stopped. Raises what `open_run` raises if the run cannot start."""
    look_up(dict.fromkeys((*QUALITIES, BEST)), options.quality, "quality")
    with count_retries() as retries:
        if options.quality == BEST:
            from proxyclip.pipeline.best.run import label_best  # it runs this module's steps

            summary = label_best(options)
        else:
            summary = execute(open_run(options))
    return replace(summary, retries=summary.retries + retries.count)


def execute(run: Run, make_runner: Callable[[Run], Runner] | None = None) -> Summary:
    """Label what is planned and what is new. Ray starts only if there is something to label.

    make_runner: takes the place of Ray, for tests.
    """
    with _Execution(run, make_runner or _on_ray) as execution:
        if run.listing is None:
            execution.label(run.pending)
        if execution.summary.stopped is None:
            execution.extend_plan()
            execution.label(run.manifest.pending(besides=execution.summary.shard_errors))
    return finish(run.manifest, execution.summary, with_stats=not run.options.add_features)


def prepare_ray() -> None:
    """What must be set before Ray is imported.

    For so many seconds Ray Data keeps the cores that a killed driver has claimed, and a run resumed on the same cluster
    waits; its own value is 180. A living driver claims them again every 10 s.
    """
    os.environ.setdefault("RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S", "30")


def _on_ray(run: Run) -> Runner:
    prepare_ray()
    from proxyclip.pipeline.runner import RayRunner  # importing Ray takes as long as a finished run

    return RayRunner(run)


class _Execution:
    """A run at work. Its runner is made when it is first needed."""

    def __init__(self, run: Run, make_runner: Callable[[Run], Runner]) -> None:
        self.run = run
        self.summary = Summary(failures_allowed=run.options.max_failures is not None)
        self._make_runner = make_runner
        self._runner: Runner | None = None
        self._config: RunConfig | None = None  # known once the run is recorded

    def __enter__(self) -> _Execution:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._runner is not None:
            self.summary.retries += self._runner.retries
            self._runner.close()

    def extend_plan(self) -> None:
        """Plan what is new, changed or gone since the last listing of the input."""
        self._begin()
        options, listing = self.run.options, self.run.listing
        if listing is None:
            listing = self.run.list_images()
        plan = self.run.manifest.extend_plan(listing, options.shard_size)
        if plan.changed:
            logger.warning("%d images changed since they were planned; they are labelled again.", plan.changed)
        if plan.removed:
            logger.warning("%d images are gone from the input; their masks no longer count.", plan.removed)

    def label(self, pending: list[ShardRange]) -> None:
        """Label the pending shards. `summary` gets the shards that failed, and the reason if the run stops early."""
        if not pending:
            return
        config, manifest, summary = self._begin(), self.run.manifest, self.summary
        totals = manifest.totals()
        allowed = allowed_failures(self.run.options.max_failures, totals.planned)
        compaction = Compaction(manifest.commits, manifest.committed())
        shown = CommitLog if self.run.options.log_json else RunProgress
        progress = shown(totals.planned, totals.labelled + totals.failed, totals.failed)
        in_a_row = 0
        with contextlib.closing(compaction), progress:
            for receipt in self._running().label(config, pending):
                summary.retries += receipt.retries
                if receipt.error is not None:
                    progress.shard_failed(receipt.shard, receipt.error)
                    summary.shard_errors[receipt.shard] = receipt.error
                    in_a_row += 1
                    if in_a_row == ERRORS_IN_A_ROW:
                        summary.stopped = f"{in_a_row} shards in a row failed; the last error: {receipt.error}"
                        return
                    continue
                in_a_row = 0
                compaction.add(receipt.shard)
                progress.add(receipt.labelled, receipt.failed, shard=receipt.shard)
                if allowed is not None and progress.failed > allowed:
                    limit = f"--max-failures {self.run.options.max_failures} allows {allowed}"
                    summary.stopped = f"{progress.failed} images failed, {limit}"
                    return

    def _begin(self) -> RunConfig:
        """Record the run in the output. A new run takes a precision that suits the cluster."""
        if self._config is None:
            run, storage = self.run, self.run.manifest.storage
            dtype = run.dtype if run.resumed and run.dtype else self._running().dtype(run.dtype)
            vocabulary = run.vocabulary
            begin_run(storage, run.record(dtype), vocabulary.to_json() if vocabulary else None)
            if vocabulary is not None and vocabulary.embeddings is not None:
                write_embeddings(storage, vocabulary.embeddings)
            if run.head is not None:
                write_head(storage, run.head)
            if features := run.features(dtype):
                begin_features(storage, features)
            if collected := run.collected(dtype):
                begin_collecting(storage, collected)
            self._config = run.config_in(dtype)
        return self._config

    def _running(self) -> Runner:
        if self._runner is None:
            self._runner = self._make_runner(self.run)
        return self._runner


def finish(manifest: Manifest, summary: Summary, *, with_stats: bool = True) -> Summary:
    """Compact the commits, write the statistics of a finished run, and count."""
    try:
        manifest.compact()
        totals = manifest.totals()
        if with_stats and totals.committed == totals.shards and not manifest.has_class_stats():
            manifest.write_class_stats()
    except OSError as error:
        if not summary.shard_errors:
            raise
        return replace(summary, stopped=f"the output can no longer be read: {error}")
    return replace(
        summary,
        images=totals.planned,
        labelled=totals.labelled,
        failed=totals.failed,
        shards=totals.shards,
        committed=totals.committed,
    )
