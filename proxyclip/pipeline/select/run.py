"""Choose images: go over the shards, then choose among the records, and write the list."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from proxyclip.dataset.reading.passes import Ledger
from proxyclip.pipeline.passes.run import PassSummary, run_pass
from proxyclip.pipeline.select.choosing import Candidates, Choice, choose
from proxyclip.pipeline.select.opening import SelectRun, open_selection
from proxyclip.pipeline.select.options import SelectOptions
from proxyclip.pipeline.select.records import from_bytes
from proxyclip.storage.store import Storage, public_uri

LIST = "selected.csv"

# Records of shards read ahead, about 100 bytes an image.
_AHEAD = 16


@dataclass(frozen=True)
class Selected:
    """How a selection ended. chosen: in order of choice; empty if it did not finish. left: shards not labelled yet."""

    work: PassSummary
    chosen: Sequence[Choice] = ()
    num_images: int = 0
    left: int = 0


def select(options: SelectOptions) -> Selected:
    """Choose images of an output. Raises what `open_selection` raises if it cannot start.

    The same labels, features and count give the same bytes, for any number of workers and restarts.
    """
    run = open_selection(options)
    ledger = Ledger(Storage(run.options.output))
    ledger.begin(run.record)
    work = run_pass(
        run.labels,
        ledger,
        run.work,
        verb="looking at",
        address=options.address,
        concurrency=options.concurrency,
        verbose=options.verbose,
    )
    totals = run.labels.totals
    left = totals.shards - totals.committed
    if not work.finished:
        return Selected(work, left=left)
    return _choose(run, ledger, work, left)


def _choose(run: SelectRun, ledger: Ledger, work: PassSummary, left: int) -> Selected:
    names = run.labels.vocabulary.class_names
    candidates = Candidates(len(names), run.options.count)
    for shard, data in ledger.results(work.states, ahead=_AHEAD):
        try:
            candidates.add(from_bytes(data))
        except ValueError as error:
            raise ValueError(
                f"{public_uri(ledger.destination.uri)}, shard {shard}: {error} Delete that folder, and run again."
            ) from error
    if not candidates.num_images:
        raise ValueError(f"{public_uri(run.labels.storage.uri)} has no labelled images to choose from.")
    chosen = list(islice(choose(candidates, names), run.options.count))
    ledger.destination.write(LIST, _csv(chosen))
    return Selected(work, chosen, candidates.num_images, left)


def _csv(chosen: Sequence[Choice]) -> bytes:
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["uri", "class", "share", "doubt"])
    rows.writerows([each.uri, each.class_name, f"{each.share:.4f}", f"{each.doubt:.4f}"] for each in chosen)
    return text.getvalue().encode()
