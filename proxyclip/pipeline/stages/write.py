"""Write stage: one Parquet file and one commit per shard, a receipt to the driver."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from proxyclip.dataset.shards import Failure, LabelledImage, write_shard
from proxyclip.storage.retry import take_retries
from proxyclip.storage.store import Storage

RECEIPT_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("labelled", pa.int64()),
        ("failed", pa.int64()),
        ("error", pa.string()),  # null once the shard is committed
        ("retries", pa.int64()),  # storage requests that were made again, from reading to committing
    ]
)


class WriteShards:
    """Rows of `worker.RESULT_SCHEMA` to receipts."""

    def __init__(self, output: str, class_names: Sequence[str]) -> None:
        self._output = Storage(output)
        self._class_names = class_names

    def __call__(self, rows: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._write(row) for row in rows.to_pylist()], schema=RECEIPT_SCHEMA)

    def _write(self, row: dict[str, Any]) -> dict[str, Any]:
        shard, error = row["shard"], row["error"]
        labelled = failed = 0
        if error is None:
            try:
                images = [LabelledImage(**image) for image in row["images"]]
                failures = [Failure(**failure) for failure in row["failures"]]
                commit = write_shard(self._output, shard, images, failures, self._class_names)
                labelled, failed = commit.labelled, commit.failed
            except Exception as problem:  # the run goes on; the driver lists it
                error = "".join(traceback.format_exception_only(problem)).strip()
        retries = row["retries"] + take_retries()
        return {"shard": shard, "labelled": labelled, "failed": failed, "error": error, "retries": retries}
