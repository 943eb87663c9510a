"""The rows of an output: one dataclass and one Arrow schema each, and how a table becomes a Parquet file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

# Raise when a reader of today could not read the files any more.
SCHEMA_VERSION = 1

Stage = Literal["fetch", "decode", "segment"]


@dataclass(frozen=True)
class LabelledImage:
    """One image and its labels.

    uri: its key relative to the input. height, width: pixels of image and mask. mask, confidence: PNG files.
    classes, pixels, class_confidence: for each class that occurs its index, its number of pixels and their mean
    confidence (0 to 1), in order of index. mean_confidence: over all labelled pixels, 0 if there are none.
    ignored: number of pixels without a class. `pixels` and `ignored` add up to height x width.
    """

    uri: str
    height: int
    width: int
    mask: bytes
    confidence: bytes
    classes: Sequence[int]
    pixels: Sequence[int]
    class_confidence: Sequence[float]
    mean_confidence: float
    ignored: int


@dataclass(frozen=True)
class Failure:
    """One image that could not be labelled: the stage that failed, the kind of failure, and the reason in words."""

    uri: str
    stage: Stage
    status: str
    reason: str


@dataclass(frozen=True)
class ImageFeatures:
    """One image's dense features, as bytes of a codec (`models.codec`).

    uri, etag: the image, and which version of it. height, width: its pixels. resized_height, resized_width: pixels of
    the image that windows were cut from. windows: their plan along both axes, as WINDOWS_STRUCT. grid_height,
    grid_width: patches of a window. max_error: the largest error of a cosine with a unit text embedding.
    """

    uri: str
    etag: str
    height: int
    width: int
    resized_height: int
    resized_width: int
    windows: dict[str, Any]
    grid_height: int
    grid_width: int
    codec: str
    max_error: float
    bytes: bytes


def _schema(table: str, /, nullable: tuple[str, ...] = (), **columns: pa.DataType) -> pa.Schema:
    fields = [pa.field(column, kind, nullable=column in nullable) for column, kind in columns.items()]
    return pa.schema(fields, metadata={"proxyclip.schema": f"{table}/{SCHEMA_VERSION}"})


_PNG = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

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
FAILURES = _schema("failures", uri=pa.string(), stage=pa.string(), status=pa.string(), reason=pa.string())
_COUNTS = {"name": pa.string(), "images": pa.int64(), "pixels": pa.int64()}
STATS = _schema("stats", **{"shard": pa.int64(), "class": pa.int32(), **_COUNTS, "mean_confidence": pa.float64()})

_AXIS = pa.struct(
    [("starts", pa.list_(pa.int32())), ("length", pa.int32()), ("pad_before", pa.int32()), ("pad_after", pa.int32())]
)
WINDOWS_STRUCT = pa.struct([("y", _AXIS), ("x", _AXIS), ("whole", pa.bool_())])
FEATURES = _schema(
    "features",
    uri=pa.string(),
    etag=pa.string(),
    **dict.fromkeys(("height", "width", "resized_height", "resized_width"), pa.int32()),
    windows=WINDOWS_STRUCT,
    grid_height=pa.int32(),
    grid_width=pa.int32(),
    codec=pa.string(),
    max_error=pa.float32(),
    bytes=pa.binary(),
)

# The kinds of data files that a labelled shard has, and all kinds: features are committed by themselves.
KINDS = {"masks": MASKS, "stats": STATS, "failures": FAILURES}
ALL_KINDS = {**KINDS, "features": FEATURES}

# The same rows as values, for a table with one row per shard. There a column of type `binary` holds at most 2 GB per
# shard (pyarrow then runs out of memory), so PNG files are `large_binary`.
_LARGE_PNG = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
IMAGE_STRUCT = pa.struct([field.with_type(_LARGE_PNG) if field.type == _PNG else field for field in MASKS])
FAILURE_STRUCT = pa.struct(list(FAILURES))
FEATURES_STRUCT = pa.struct(
    [field.with_type(pa.large_binary()) if field.name == "bytes" else field for field in FEATURES]
)

PLAN = _schema(
    "plan",
    ("shard", "replaces"),
    shard=pa.int64(),
    uri=pa.string(),
    size_bytes=pa.int64(),
    etag=pa.string(),
    replaces=pa.int64(),
)
_FILE = pa.struct([("key", pa.string()), ("rows", pa.int64()), ("size_bytes", pa.int64()), ("sha256", pa.string())])
SEGMENT = _schema(
    "segment",
    tuple(ALL_KINDS),
    shard=pa.int64(),
    images=pa.int64(),
    labelled=pa.int64(),
    failed=pa.int64(),
    **dict.fromkeys(ALL_KINDS, _FILE),
)
CLASS_STATS = _schema(
    "class_stats", **{"class": pa.int32(), **_COUNTS, "share": pa.float64(), "mean_confidence": pa.float64()}
)


def to_row(image: LabelledImage) -> dict[str, Any]:
    """A labelled image as a row of MASKS. The paths are the names that viewers show for the PNG files."""
    return {
        **vars(image),
        "mask": {"bytes": image.mask, "path": f"{image.uri}.mask.png"},
        "confidence": {"bytes": image.confidence, "path": f"{image.uri}.confidence.png"},
        "classes": list(image.classes),
        "pixels": list(image.pixels),
        "class_confidence": list(image.class_confidence),
    }


def from_row(row: dict[str, Any]) -> LabelledImage:
    """The labelled image of a row of MASKS."""
    return LabelledImage(**{**row, "mask": row["mask"]["bytes"], "confidence": row["confidence"]["bytes"]})


def masks_table(images: Sequence[LabelledImage]) -> pa.Table:
    """Labelled images as a table of schema MASKS."""
    return pa.Table.from_pylist([to_row(image) for image in images], MASKS)


def labelled_images(rows: pa.Table) -> list[LabelledImage]:
    """The labelled images of a table of schema MASKS."""
    return [from_row(row) for row in rows.to_pylist()]


def failures_table(rows: Sequence[Failure]) -> pa.Table:
    """Failures as a table of schema FAILURES."""
    return pa.Table.from_pylist([vars(failure) for failure in rows], FAILURES)


def failures(rows: pa.Table) -> list[Failure]:
    """The failures of a table of schema FAILURES."""
    return [Failure(**row) for row in rows.to_pylist()]


def features_table(images: Sequence[ImageFeatures]) -> pa.Table:
    """Features as a table of schema FEATURES."""
    return pa.Table.from_pylist([vars(image) for image in images], FEATURES)


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file. Equal rows give equal bytes. PNG files and features are stored as they are, all else
    as zstd.
    """
    leaves = [leaf for field in table.schema for leaf in _leaves(field.name, field.type)]
    plain = {leaf for leaf in leaves if leaf.rpartition(".")[2] == "bytes"}
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
