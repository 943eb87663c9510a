"""Write: the files of a shard and its commit; the driver gets a receipt."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from proxyclip.dataset.rows import Failure, from_row
from proxyclip.dataset.shards import write_shard
from proxyclip.storage.retry import count_retries
from proxyclip.storage.store import Storage

RECEIPT_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("labelled", pa.int64()),
        ("failed", pa.int64()),
        ("error", pa.string()),
        ("retries", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Receipt:
    """What became of a shard.

    error: None once the shard is committed. retries: storage requests for it that were sent again.
    """

    shard: int
    labelled: int
    failed: int
    error: str | None
    retries: int


class WriteShards:
    """Rows of `label.RESULT_SCHEMA` to receipts."""

    def __init__(self, output: str, class_names: Sequence[str]) -> None:
        self._output = Storage(output)
        self._class_names = class_names

    def __call__(self, rows: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([vars(self._write(row)) for row in rows.to_pylist()], schema=RECEIPT_SCHEMA)

    def _write(self, row: dict[str, Any]) -> Receipt:
        if row["error"] is not None:
            return Receipt(row["shard"], 0, 0, row["error"], row["retries"])
        labelled = failed = 0
        error = None
        with count_retries() as retries:
            try:
                images = [from_row(image) for image in row["images"]]
                failures = [Failure(**failure) for failure in row["failures"]]
                commit = write_shard(self._output, row["shard"], images, failures, self._class_names)
                labelled, failed = commit.labelled, commit.failed
            except Exception as problem:  # the run goes on; the driver lists the error
                error = "".join(traceback.format_exception_only(problem)).strip()
        return Receipt(row["shard"], labelled, failed, error, row["retries"] + retries.count)
