"""Write: the files of a shard and its commit; the driver gets a receipt."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from proxyclip.dataset.commits import Commit
from proxyclip.dataset.features.collected import write_collected
from proxyclip.dataset.features.shards import write_features
from proxyclip.dataset.rows import Failure, ImageFeatures, from_row
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
        ("failures", pa.list_(pa.string())),
        ("windows", pa.int64()),
        ("read_bytes", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Receipt:
    """What became of a shard.

    error: None once the shard is committed. retries: storage requests for it that were sent again. failures: statuses
    of the images that failed. windows: those that went through the networks. read_bytes: of its images.
    """

    shard: int
    labelled: int
    failed: int
    error: str | None
    retries: int
    failures: Sequence[str] = ()
    windows: int = 0
    read_bytes: int = 0


class WriteShards:
    """Rows of `label.RESULT_SCHEMA` to receipts.

    class_names: None writes no masks. features: whether features are written.
    """

    def __init__(self, output: str, class_names: Sequence[str] | None, *, features: bool = False) -> None:
        self._output = Storage(output)
        self._class_names = class_names
        self._features = features

    def __call__(self, rows: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([vars(self._write(row)) for row in rows.to_pylist()], schema=RECEIPT_SCHEMA)

    def _write(self, row: dict[str, Any]) -> Receipt:
        work = {name: row[name] for name in ("windows", "read_bytes")}
        receipt = Receipt(row["shard"], 0, 0, row["error"], row["retries"], **work)
        if receipt.error is not None:
            return receipt
        with count_retries() as retries:
            try:
                commit = self._commit(row)
                statuses = [failure["status"] for failure in row["failures"]]
                receipt = replace(receipt, labelled=commit.labelled, failed=commit.failed, failures=statuses)
            except Exception as problem:  # the run goes on; the driver lists the error
                receipt = replace(receipt, error="".join(traceback.format_exception_only(problem)).strip())
        return replace(receipt, retries=receipt.retries + retries.count)

    def _commit(self, row: dict[str, Any]) -> Commit:
        """Masks come last: a shard that has them is done, so all else must be there by then."""
        failures = [Failure(**failure) for failure in row["failures"]]
        if row["statistics"] is not None:
            write_collected(self._output, row["shard"], row["statistics"])
        if self._features:
            features = [ImageFeatures(**image) for image in row["features"]]
            kept = write_features(self._output, row["shard"], features, failures)
            if self._class_names is None:
                return kept
        assert self._class_names is not None
        images = [from_row(image) for image in row["images"]]
        return write_shard(self._output, row["shard"], images, failures, self._class_names)
