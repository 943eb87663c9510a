"""What a selection knows of an image: a small record, in a table with a row an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.rows import parquet_bytes

Floats = npt.NDArray[np.float64]

# uncertainty: 1 less the mean confidence; with features, 1 less the mean margin between the two best classes.
# disagreement: share of the image to which text and head give other classes; null without a head. classes, shares: the
# classes of the mask and their shares of the image. place: where the image lies among the others, E float16; the mean
# of its patch features, or nothing without features.
RECORDS = pa.schema(
    [
        ("uri", pa.string()),
        ("uncertainty", pa.float32()),
        ("disagreement", pa.float32()),
        ("classes", pa.list_(pa.int32())),
        ("shares", pa.list_(pa.float32())),
        ("place", pa.binary()),
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


def values(table: pa.Table) -> Floats:
    """(N,): how much the label of each image is in doubt, 0 to 2."""
    doubt = table["uncertainty"].to_numpy().astype(np.float64)
    return doubt + np.nan_to_num(table["disagreement"].to_numpy().astype(np.float64))


def shares(table: pa.Table, num_classes: int) -> Floats:
    """(N, K): the share of each image that each class has."""
    found = np.zeros((table.num_rows, num_classes))
    for row, classes, parts in zip(found, table["classes"].to_pylist(), table["shares"].to_pylist(), strict=True):
        row[classes] = parts
    return found


def places(table: pa.Table, num_classes: int) -> Floats:
    """(N, D), of length 1: where the images lie; by their features, else by the classes of their masks."""
    raw = table["place"].to_pylist()
    if raw and raw[0]:
        found = np.stack([np.frombuffer(each, "<f2") for each in raw]).astype(np.float64)
    else:
        found = np.sqrt(shares(table, num_classes))
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
