"""Relabel a corpus: open it, run the shards on Ray, say how each vocabulary ended."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from proxyclip.dataset.run_record import begin_run, write_embeddings, write_head
from proxyclip.dataset.segments import Compaction
from proxyclip.pipeline.options import allowed_failures
from proxyclip.pipeline.progress import RunProgress
from proxyclip.pipeline.relabel.opening import Relabelling, Target, open_relabelling
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.run import ERRORS_IN_A_ROW, Summary, finish, prepare_ray
from proxyclip.pipeline.stages.write import Receipt
from proxyclip.storage.retry import count_retries
from proxyclip.storage.store import public_uri


class Runner(Protocol):
    """What relabels shards: `runner.RayRunner`, or a test's stand-in."""

    def relabel(self, pending: dict[int, list[int]]) -> Iterator[tuple[int, Receipt]]:
        """Relabel shards, each for the outputs that lack it: the number of an output and a receipt, in any order."""

    def close(self) -> None:
        """Give back what was taken."""


def relabel(options: RelabelOptions) -> dict[str, Summary]:
    """Label a corpus with other vocabularies, or continue a run that stopped. Returns a summary for each output.

    Raises what `open_relabelling` raises if it cannot start.
    """
    with count_retries() as retries:
        summaries = execute(open_relabelling(options))
    first = next(iter(summaries))
    counted = replace(summaries[first], retries=summaries[first].retries + retries.count)
    return {**summaries, first: counted}


def execute(run: Relabelling, make_runner: Callable[[Relabelling], Runner] | None = None) -> dict[str, Summary]:
    """Relabel what the source has features of. Ray starts only if there is something to do."""
    summaries = [Summary(failures_allowed=run.options.max_failures is not None) for _ in run.targets]
    for target in run.targets:
        _begin(target, run)
    pending, without_features = _pending(run)
    if pending:
        with contextlib.closing((make_runner or _on_ray)(run)) as runner:
            _relabel(run, runner, pending, summaries)
    for summary in summaries:
        if without_features and summary.stopped is None:
            summary.stopped = (
                f"{without_features} shards of {public_uri(run.options.source)} have no features yet. If its job still "
                "runs, relabel again when it is done; else run its labelling command with --add-features"
            )
    ended = zip(run.targets, summaries, strict=True)
    return {target.storage.uri: finish(target.manifest, summary) for target, summary in ended}


def _begin(target: Target, run: Relabelling) -> None:
    """Record the run in the output, with the plan of the source as it is now."""
    begin_run(target.storage, target.record, target.vocabulary.to_json())
    if target.vocabulary.embeddings is not None:
        write_embeddings(target.storage, target.vocabulary.embeddings)
    if target.head is not None:
        write_head(target.storage, target.head)
    target.manifest.follow(run.source)


def _pending(run: Relabelling) -> tuple[dict[int, list[int]], int]:
    """The shards with features that some outputs lack, with the numbers of these; and how many have no features."""
    kept = run.source.committed()
    pending: dict[int, list[int]] = defaultdict(list)
    without: set[int] = set()
    for number, target in enumerate(run.targets):
        for part in target.manifest.pending():
            for shard in part.shards:
                if shard in kept:
                    pending[shard].append(number)
                else:
                    without.add(shard)
    return dict(sorted(pending.items())), len(without)


def _relabel(run: Relabelling, runner: Runner, pending: dict[int, list[int]], summaries: list[Summary]) -> None:
    """Run the shards. `summaries` get the shards that failed, and the reason if all stop early."""
    totals = [target.manifest.totals() for target in run.targets]
    failed, in_a_row = [each.failed for each in totals], 0
    done = sum(each.labelled + each.failed for each in totals)
    progress = RunProgress(sum(each.planned for each in totals), done, sum(failed))
    with contextlib.ExitStack() as stack:
        compactions = [
            stack.enter_context(contextlib.closing(Compaction(target.storage, target.manifest.committed())))
            for target in run.targets
        ]
        stack.enter_context(progress)
        for number, receipt in runner.relabel(pending):
            summary = summaries[number]
            summary.retries += receipt.retries
            if receipt.error is not None:
                summary.shard_errors[receipt.shard] = receipt.error
                in_a_row += 1
                if in_a_row == ERRORS_IN_A_ROW:
                    for each in summaries:
                        each.stopped = f"{in_a_row} shards in a row failed; the last error: {receipt.error}"
                    return
                continue
            in_a_row = 0
            compactions[number].add(receipt.shard)
            progress.add(receipt.labelled, receipt.failed)
            failed[number] += receipt.failed
            allowed = allowed_failures(run.options.max_failures, totals[number].planned)
            if allowed is not None and failed[number] > allowed:
                limit = f"--max-failures {run.options.max_failures} allows {allowed}"
                for each in summaries:
                    each.stopped = f"{failed[number]} images failed, {limit}"
                return


def _on_ray(run: Relabelling) -> Runner:
    prepare_ray()
    from proxyclip.pipeline.relabel.runner import RayRunner  # importing Ray takes as long as a finished run

    return RayRunner(run)
