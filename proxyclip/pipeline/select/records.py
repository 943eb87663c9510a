"""What a selection knows of an image: a small record, in a table with a row an image."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.rows import parquet_bytes

# doubt: 1 less the mean margin between the two best classes, 0 to 1; without features, 1 less the mean confidence.
# classes, shares: the classes of the mask and their shares of the image.
RECORDS = pa.schema(
    [
        ("uri", pa.string()),
        ("doubt", pa.float32()),
        ("classes", pa.list_(pa.int32())),
        ("shares", pa.list_(pa.float32())),
    ]
)


def to_bytes(rows: list[dict[str, Any]]) -> bytes:
    """Records as a Parquet file."""
    return parquet_bytes(pa.Table.from_pylist(rows, RECORDS))


def from_bytes(data: bytes) -> pa.Table:
    """The inverse of `to_bytes`. Raises ValueError if the bytes are damaged."""
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the records are damaged: {error}") from error
    if table.schema.names != RECORDS.names:
        raise ValueError("the records are damaged: they have other columns.")
    return table
