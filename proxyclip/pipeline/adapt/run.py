"""Learn a head: sum over the shards by the text, learn, sum again by what was learned, learn again, write the head."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxyclip.dataset.features.collected import read_collected
from proxyclip.dataset.reading.passes import Ledger, PassRecord, ShardState, shard_states
from proxyclip.pipeline.adapt.opening import Adaptation, Marks, open_adaptation
from proxyclip.pipeline.adapt.options import AdaptOptions
from proxyclip.pipeline.adapt.work import MarkShard, SumShard, from_pair
from proxyclip.pipeline.passes.run import ShardWork, run_pass
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
    """How an adaptation ended. head: None if it did not finish. errors: by shard. left: shards not labelled yet.

    marked: images that people labelled. waiting: those of them that the head does not know, as they have no mask yet.
    """

    head: Head | None = None
    images: int = 0
    marked: int = 0
    waiting: int = 0
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
    if run.collected:
        return _from_collected(run, summary)
    first = _summed(run, "round1", None, summary)
    if first is None:
        return summary
    lesson = learn(first, run.vocabulary, run.scale, run.features.encoder, _provenance(run, summary.marked))
    work, fingerprint = Storage(run.work), lesson.head.fingerprint
    if run.options.rounds == 2 and lesson.again:
        name = f"round1-{fingerprint}.safetensors"
        work.write(name, lesson.head.data)
        second = _summed(run, f"round2-{fingerprint}", f"{run.work}/{name}", summary)
        if second is None:
            return summary
        lesson = learn(first, run.vocabulary, run.scale, run.features.encoder, _provenance(run, summary.marked), second)
    run.destination.write(run.name, lesson.head.data)
    _clean(work, fingerprint, "" if run.marks is None else run.marks.state)
    summary.waiting = 0 if run.marks is None else run.marks.waiting
    summary.head, summary.remarks, summary.images = lesson.head, lesson.remarks, int(first.images.sum())
    return summary


def _from_collected(run: Adaptation, summary: AdaptSummary) -> AdaptSummary:
    """Learn from what the labelling job has summed: one round, since a second one needs features."""
    from proxyclip.models.adaptation.learn import learn
    from proxyclip.models.adaptation.statistics import Statistics

    total, shards = Statistics.empty(run.vocabulary.num_classes, run.features.dim), 0
    for shard, data in read_collected(run.source):
        _add(total, data, run.source, shard)
        shards += 1
    lesson = learn(total, run.vocabulary, run.scale, run.features.encoder, _provenance(run, 0))
    run.destination.write(run.name, lesson.head.data)
    summary.left = run.labels.totals.shards - shards
    summary.head, summary.images = lesson.head, int(total.images.sum())
    summary.remarks = lesson.remarks
    if lesson.again and run.options.rounds == 2:
        summary.remarks += ("There is no second round, as that needs features, which --keep-features keeps.",)
    return summary


def _summed(run: Adaptation, name: str, head: str | None, summary: AdaptSummary) -> Statistics | None:
    """The statistics of all shards, by the text or by a head; None if that was not possible, as `summary` then says."""
    from proxyclip.models.adaptation.marked import with_marks
    from proxyclip.models.adaptation.statistics import Statistics

    settings = {"version": STATISTICS_VERSION, "scale": run.scale, "vocabulary": run.vocabulary.fingerprint}
    work = SumShard(run.labels.storage.uri, run.source.uri, run.scale, head)
    pair: list[Statistics] | None = None
    if run.marks is not None:  # first, as people make mistakes in labels
        marks = run.marks
        marking = MarkShard(work, marks.files, marks.coding, marks.uris)
        found = _pass(run, f"{name}-marked-{marks.state}", {**settings, "labels": marks.state}, marking, summary, marks)
        if found is None:
            return None
        pair = [Statistics.empty(run.vocabulary.num_classes, run.features.dim) for _ in range(2)]
        for shard, data in found[0].results(found[1], ahead=_AHEAD):
            for total, part in zip(pair, from_pair(data), strict=True):
                _add(total, part, found[0].destination, shard)
    done = _pass(run, name, settings, work, summary)
    if done is None:
        return None
    all_images = reduce(*done, run.vocabulary.num_classes, run.features.dim)
    if pair is None:
        return all_images
    summary.marked = int(pair[1].images.sum())
    return with_marks(all_images, *pair)


def _pass(
    run: Adaptation,
    name: str,
    settings: dict[str, Any],
    work: ShardWork,
    summary: AdaptSummary,
    marks: Marks | None = None,
) -> tuple[Ledger, list[ShardState]] | None:
    """Go over all shards, or over those that hold labelled images; None if some failed, as `summary` then says."""
    ledger = Ledger(Storage(f"{run.work}/{name}"))
    ledger.begin(PassRecord.of(f"statistics {name}", run.labels, settings))
    states = None
    if marks is not None:
        states = [each for each in shard_states(run.labels) if each.shard in marks.shards]
    options = run.options
    done = run_pass(
        run.labels,
        ledger,
        work,
        verb="learning from",
        address=options.address,
        concurrency=options.concurrency,
        verbose=options.verbose,
        states=states,
    )
    if not done.finished:
        summary.errors, summary.stopped = done.errors, done.stopped
        return None
    return ledger, done.states


def reduce(ledger: Ledger, states: list[ShardState], num_classes: int, dim: int) -> Statistics:
    """The sum of the statistics of shards. Memory: those of a few."""
    from proxyclip.models.adaptation.statistics import Statistics

    total = Statistics.empty(num_classes, dim)
    for shard, data in ledger.results(states, ahead=_AHEAD):
        _add(total, data, ledger.destination, shard)
    return total


def _add(total: Statistics, data: bytes, place: Storage, shard: int) -> None:
    """Add what a shard gave. Raises ValueError, with the place, if it is damaged."""
    from proxyclip.models.adaptation.sample import PER_CORPUS
    from proxyclip.models.adaptation.statistics import Statistics

    if not data:
        return
    try:
        total.add(Statistics.from_bytes(data), PER_CORPUS)
    except ValueError as error:
        raise ValueError(
            f"{public_uri(place.uri)}, shard {shard}: {error} Delete that folder, and run again."
        ) from error


def _provenance(run: Adaptation, marked: int) -> dict[str, Any]:
    return {
        "source": public_uri(run.labels.storage.uri),
        "features": public_uri(run.source.uri),
        "codec": run.features.codec,
        "recipe": run.labels.record.fingerprint,
        "logit_scale": run.scale,
        **({} if run.marks is None else {"labels": public_uri(run.marks.files.uri), "labelled_images": marked}),
    }


def _clean(work: Storage, fingerprint: str, marks: str) -> None:
    """Remove what belongs to other first heads, those of earlier states of the corpus, and to other labels."""
    for entry in work.list():
        head = re.match(r"round[12]-([0-9a-f]{16})[-./]", entry.key)
        labels = re.match(r"round[^/]*-marked-([0-9a-f]{16})/", entry.key)
        if (head and head[1] != fingerprint) or (labels and labels[1] != marks):
            work.delete(entry.key)
