"""The Parquet schemas of an output, and how a table becomes a file."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = 1


def _schema(table: str, /, nullable: tuple[str, ...] = (), **columns: pa.DataType) -> pa.Schema:
    fields = [pa.field(column, kind, nullable=column in nullable) for column, kind in columns.items()]
    return pa.schema(fields, metadata={"proxyclip.schema": f"{table}/{SCHEMA_VERSION}"})


_PNG = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

PLAN = _schema(
    "plan",
    ("shard", "replaces"),
    shard=pa.int64(),
    uri=pa.string(),
    size_bytes=pa.int64(),
    etag=pa.string(),
    replaces=pa.int64(),
)
MASKS = _schema(
    "masks",
    uri=pa.string(),
    height=pa.int32(),
    width=pa.int32(),
    mask=_PNG,
    confidence=_PNG,
    classes=pa.list_(pa.int32()),
    pixels=pa.list_(pa.int64()),
    class_confidence=pa.list_(pa.float32()),
    mean_confidence=pa.float32(),
    ignored=pa.int64(),
)
_COUNTS = {"name": pa.string(), "images": pa.int64(), "pixels": pa.int64()}
STATS = _schema("stats", **{"shard": pa.int64(), "class": pa.int32(), **_COUNTS, "mean_confidence": pa.float64()})
CLASS_STATS = _schema(
    "class_stats", **{"class": pa.int32(), **_COUNTS, "share": pa.float64(), "mean_confidence": pa.float64()}
)
FAILURES = _schema("failures", uri=pa.string(), stage=pa.string(), status=pa.string(), reason=pa.string())

_FILE = pa.struct([("key", pa.string()), ("rows", pa.int64()), ("size_bytes", pa.int64()), ("sha256", pa.string())])
SEGMENT = _schema(
    "segment",
    ("masks", "stats", "failures"),
    shard=pa.int64(),
    images=pa.int64(),
    labelled=pa.int64(),
    failed=pa.int64(),
    masks=_FILE,
    stats=_FILE,
    failures=_FILE,
)

KINDS = {"masks": MASKS, "stats": STATS, "failures": FAILURES}


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet, the same bytes for the same rows. PNGs are stored as they are, all else as zstd."""
    leaves = [leaf for field in table.schema for leaf in _leaves(field.name, field.type)]
    plain = {leaf for leaf in leaves if leaf.endswith(".bytes")}
    others = [leaf for leaf in leaves if leaf not in plain]
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=65536,
        compression={leaf: "NONE" if leaf in plain else "ZSTD" for leaf in leaves},
        use_dictionary=others,
        write_statistics=others,
    )
    return buffer.getvalue()


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """The columns of a Parquet file that a field becomes."""
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return [f"{path}.list.element"] if pa.types.is_list(kind) else [path]
