"""Export the labels of an output: go over its shards, then write the files that hold all of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from proxyclip.dataset.reading.passes import FOLDER, Ledger
from proxyclip.export.options import ExportOptions
from proxyclip.export.registry import FORMATS
from proxyclip.pipeline.export.opening import ExportRun, open_export
from proxyclip.pipeline.export.shard import Receipt, short_hash
from proxyclip.pipeline.passes.run import PassSummary, run_pass
from proxyclip.storage.store import Storage

FAILURES = "failures.jsonl"
_FINISHED = f"{FOLDER}/finished"


@dataclass
class ExportSummary:
    """How an export ended. left_out: images below --min-confidence-image. failed: images listed in FAILURES."""

    work: PassSummary
    exported: int = 0
    left_out: int = 0
    failed: int = 0
    shards_not_labelled: int = 0

    @property
    def exit_code(self) -> int:
        """0: all is exported. 1: not finished. 3: finished, but some images cannot be exported."""
        if not self.work.finished:
            return 1
        return 3 if self.failed else 0


def export(options: ExportOptions) -> ExportSummary:
    """Export an output, or what is not exported of it yet."""
    run = open_export(options)
    destination = Storage(options.destination)
    ledger = Ledger(destination)
    ledger.begin(run.record)
    work = run_pass(
        run.labels,
        ledger,
        run.work,
        verb="exporting",
        address=options.address,
        concurrency=options.concurrency,
        verbose=options.verbose,
        states=run.states,
    )
    totals = run.labels.totals
    summary = ExportSummary(work, shards_not_labelled=totals.shards - totals.committed)
    if work.finished:
        _finish(run, ledger, summary)
    return summary


def _finish(run: ExportRun, ledger: Ledger, summary: ExportSummary) -> None:
    """Write the files that hold all shards, unless this was done for the same shards before."""
    failures = []
    parts = []
    for _, data in ledger.results(run.states):
        receipt = Receipt.from_json(data)
        summary.exported += receipt.exported
        summary.left_out += receipt.left_out
        failures += [{"uri": uri, "reason": reason} for uri, reason in receipt.failures]
        parts += [receipt.part] if receipt.part else []
    summary.failed = len(failures)
    to = ledger.destination
    state = short_hash(json.dumps([run.states, parts]).encode()).encode()
    if to.exists(_FINISHED) and to.read(_FINISHED) == state:
        return
    form = FORMATS[run.options.to](run.work.target)
    for key, pieces in form.finish(lambda: _read_all(to, parts)):
        _write_pieces(to, key, pieces)
    if failures:
        _write_pieces(to, FAILURES, (f"{json.dumps(each, ensure_ascii=False)}\n".encode() for each in failures))
    else:
        to.delete(FAILURES)
    to.write(_FINISHED, state)


def _read_all(storage: Storage, keys: Sequence[str]) -> Iterator[bytes]:
    """Read files in order, a few ahead."""
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, len(keys), 16):
            yield from pool.map(storage.read, keys[first : first + 16])


def _write_pieces(storage: Storage, key: str, pieces: Iterable[bytes]) -> None:
    """Write a file that may not fit into memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        with path.open("wb") as file:
            file.writelines(pieces)
        storage.write_file(key, path)
