"""Learn a head: sum over the shards by the text, learn, sum again by what was learned, learn again, write the head."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxyclip.dataset.reading.passes import Ledger, PassRecord, ShardState
from proxyclip.pipeline.adapt.opening import Adaptation, open_adaptation
from proxyclip.pipeline.adapt.options import AdaptOptions
from proxyclip.pipeline.adapt.work import SumShard
from proxyclip.pipeline.passes.run import run_pass
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.heads import Head

if TYPE_CHECKING:
    from proxyclip.models.adaptation.statistics import Statistics

# Raise when statistics of earlier versions must not be added to those of today.
STATISTICS_VERSION = 1

# Receipts read ahead, half a megabyte each or more.
_AHEAD = 16


@dataclass
class AdaptSummary:
    """How an adaptation ended. head: None if it did not finish. errors: by shard. left: shards not labelled yet."""

    head: Head | None = None
    images: int = 0
    left: int = 0
    remarks: tuple[str, ...] = ()
    errors: dict[int, str] = field(default_factory=dict)
    stopped: str | None = None

    @property
    def exit_code(self) -> int:
        """0: the head is written. 1: it is not."""
        return 0 if self.head is not None else 1


def adapt(options: AdaptOptions) -> AdaptSummary:
    """Learn a head from an output, or go on. Raises what `open_adaptation` raises if it cannot start.

    The same images with the same features give the same bytes, for any number of workers and restarts.
    """
    return execute(open_adaptation(options))


def execute(run: Adaptation) -> AdaptSummary:
    """Sum, learn and write the head."""
    from proxyclip.models.adaptation.learn import learn

    totals = run.labels.totals
    summary = AdaptSummary(left=totals.shards - totals.committed)
    first = _summed(run, "round1", None, summary)
    if first is None:
        return summary
    lesson = learn(first, run.vocabulary, run.scale, run.features.encoder, _provenance(run))
    work, fingerprint = Storage(run.work), lesson.head.fingerprint
    if run.options.rounds == 2 and lesson.again:
        name = f"round1-{fingerprint}.safetensors"
        work.write(name, lesson.head.data)
        second = _summed(run, f"round2-{fingerprint}", f"{run.work}/{name}", summary)
        if second is None:
            return summary
        lesson = learn(first, run.vocabulary, run.scale, run.features.encoder, _provenance(run), second)
    run.destination.write(run.name, lesson.head.data)
    _clean(work, fingerprint)
    summary.head, summary.remarks, summary.images = lesson.head, lesson.remarks, int(first.images.sum())
    return summary


def _summed(run: Adaptation, name: str, head: str | None, summary: AdaptSummary) -> Statistics | None:
    """The statistics of all shards, by the text or by a head; None if that was not possible, as `summary` then says."""
    ledger = Ledger(Storage(f"{run.work}/{name}"))
    settings = {"version": STATISTICS_VERSION, "scale": run.scale, "vocabulary": run.vocabulary.fingerprint}
    ledger.begin(PassRecord.of(f"statistics {name}", run.labels, settings))
    work = SumShard(run.labels.storage.uri, run.source.uri, run.scale, head)
    options = run.options
    done = run_pass(
        run.labels,
        ledger,
        work,
        verb="learning from",
        address=options.address,
        concurrency=options.concurrency,
        verbose=options.verbose,
    )
    if not done.finished:
        summary.errors, summary.stopped = done.errors, done.stopped
        return None
    return reduce(ledger, done.states, run.vocabulary.num_classes, run.features.dim)


def reduce(ledger: Ledger, states: list[ShardState], num_classes: int, dim: int) -> Statistics:
    """The sum of the statistics of shards. Memory: those of a few."""
    from proxyclip.models.adaptation.sample import PER_CORPUS
    from proxyclip.models.adaptation.statistics import Statistics

    total = Statistics.empty(num_classes, dim)
    for shard, data in ledger.results(states, ahead=_AHEAD):
        if data:
            try:
                total.add(Statistics.from_bytes(data), PER_CORPUS)
            except ValueError as error:
                raise ValueError(
                    f"{public_uri(ledger.destination.uri)}, shard {shard}: {error} Delete that folder, and run again."
                ) from error
    return total


def _provenance(run: Adaptation) -> dict[str, Any]:
    return {
        "source": public_uri(run.labels.storage.uri),
        "features": public_uri(run.source.uri),
        "codec": run.features.codec,
        "recipe": run.labels.record.fingerprint,
        "logit_scale": run.scale,
    }


def _clean(work: Storage, fingerprint: str) -> None:
    """Remove what belongs to other first heads: those of earlier states of the corpus."""
    for entry in work.list():
        found = re.match(r"round[12]-([0-9a-f]{16})[./]", entry.key)
        if found and found[1] != fingerprint:
            work.delete(entry.key)
