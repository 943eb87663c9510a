"""Parquet files with image bytes, as Hugging Face's datasets have them: name the rows, read them by row group."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.kept import Kept
from proxyclip.images.inputs.names import PARQUET, row_name, split_parquet
from proxyclip.images.inputs.sorting import SCHEMA
from proxyclip.images.inputs.tables import choose
from proxyclip.images.ref import GONE, ImageRef
from proxyclip.storage.store import Entry, Storage, StorageError, public_uri

IMAGE_COLUMN = "image"
_BATCH_ROWS = 2**16
# Rows of a row group that are in memory at once.
_ROWS_AT_ONCE = 32
_FILES_KEPT = 16
_BROKEN = (pa.ArrowException, OSError, ValueError)


def image_column(schema: pa.Schema, given: str | None, shown: str) -> str | None:
    """The part of each row that is an image's bytes, or None if nothing was given and the file has no such column.

    Raises ValueError if the column that was given is not there, or if it holds no bytes.
    """
    if given is None and not (IMAGE_COLUMN in schema.names and _leaf(schema.field(IMAGE_COLUMN))):
        return None
    name = choose(schema.names, given, (IMAGE_COLUMN,), "--image-column", shown)
    leaf = _leaf(schema.field(name))
    if leaf is None:
        raise ValueError(
            f"input {shown}: column {name!r} has type {schema.field(name).type}; an image is binary, or a struct with "
            "binary `bytes`."
        )
    return leaf


def _leaf(field: pa.Field) -> str | None:
    kind = field.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return str(field.name)
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        inner = kind.field("bytes").type
        if pa.types.is_binary(inner) or pa.types.is_large_binary(inner):
            return f"{field.name}.bytes"
    return None


def list_rows(storage: Storage, entry: Entry, image: str | None, key_column: str | None) -> Iterator[pa.RecordBatch]:
    """The images of a Parquet file, as rows of `sorting.SCHEMA`. Reads its footer, and the column of keys.

    The size of an image is the mean of its row group. A file that cannot be read has one row, which stands for it.
    """
    shown = f"{public_uri(storage.uri)}/{entry.key}"
    try:
        with storage.open(entry.key) as file:
            parquet = pq.ParquetFile(file)
            leaf = image_column(parquet.schema_arrow, image or IMAGE_COLUMN, shown)
            assert leaf is not None
            sizes = [size for group in _groups(parquet.metadata, leaf) for size in [group.mean_bytes] * group.num_rows]
            if key_column is None:
                names = [row_name(row) for row in range(parquet.metadata.num_rows)]
                etags = [entry.etag] * len(names)
            else:
                names = _keys(parquet, key_column, shown)
                etags = [f"{row}-{entry.etag}" for row in range(len(names))]
    except (StorageError, FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError):
        stands_for_it = ([f"{entry.key}#"], [0], [entry.etag])
        yield pa.RecordBatch.from_arrays([pa.array(column) for column in stands_for_it], schema=SCHEMA)
        return
    for start in range(0, len(names), _BATCH_ROWS):
        end = start + _BATCH_ROWS
        uris = pa.array([f"{entry.key}#{name}" for name in names[start:end]], pa.string())
        columns = [uris, pa.array(sizes[start:end], pa.int64()), pa.array(etags[start:end], pa.string())]
        yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


@dataclass(frozen=True)
class _Group:
    num_rows: int
    mean_bytes: int


def _groups(metadata: pq.FileMetaData, leaf: str) -> list[_Group]:
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = (group.column(index) for index in range(group.num_columns))
        size = next(column.total_uncompressed_size for column in columns if column.path_in_schema == leaf)
        found.append(_Group(group.num_rows, size // max(group.num_rows, 1)))
    return found


def _keys(parquet: pq.ParquetFile, key_column: str, shown: str) -> list[str]:
    """The key of each row. Raises ValueError unless each row has one of its own."""
    name = choose(parquet.schema_arrow.names, key_column, (), "--key-column", shown)
    keys = parquet.read([name])[name].cast(pa.string())
    advice = "choose another column, or leave out --key-column, and rows are named by their number."
    empty = pc.fill_null(pc.equal(pc.binary_length(keys), 0), True)
    if pc.any(empty).as_py():
        row = pc.index(empty, True).as_py()
        raise ValueError(f"input {shown}: row {row} has no key in column {name!r}; {advice}")
    found: list[str] = keys.to_pylist()
    first: dict[str, int] = {}
    for row, key in enumerate(found):
        if first.setdefault(key, row) != row:
            raise ValueError(f"input {shown}: rows {first[key]} and {row} have the same key {key!r}; {advice}")
    return found


@dataclass(frozen=True)
class _Footer:
    """What is kept of a Parquet file. keys: the row of each key; None without a column of keys."""

    etag: str
    metadata: pq.FileMetaData
    leaf: str
    first_rows: list[int]
    keys: dict[str, int] | None


class ParquetFiles:
    """Reads rows of Parquet files."""

    def __init__(self, storage: Storage, image: str | None, key_column: str | None) -> None:
        self._storage = storage
        self._image = image or IMAGE_COLUMN
        self._key_column = key_column
        self._footers: Kept[_Footer] = Kept(_FILES_KEPT)

    def read(self, uri: str) -> bytes:
        """The bytes of an image. Raises ImageError("fetch_failed") if there are none."""
        (found,) = self.read_group([uri])
        if isinstance(found, ImageError):
            raise found
        return found

    def plan(self, refs: Sequence[ImageRef]) -> Iterator[list[ImageRef]]:
        """The rows in groups that are best read together: those of a row group."""
        groups: dict[tuple[str, int], list[ImageRef]] = defaultdict(list)
        for ref in refs:
            key, _ = _parts(ref.uri)
            try:
                _, group = self._find(ref.uri)
            except (ImageError, PermissionError):  # each says so when it is read
                group = -1
            groups[key, group].append(ref)
        yield from groups.values()

    def read_group(self, uris: Sequence[str]) -> list[bytes | ImageError]:
        """The bytes of some rows of one row group, or why there are none."""
        found: dict[str, bytes | ImageError] = {}
        wanted: dict[int, str] = {}
        group = -1
        for uri in uris:
            try:
                row, group = self._find(uri)
                wanted[row] = uri
            except ImageError as error:
                found[uri] = error
        if wanted:
            found |= self._read_rows(_parts(uris[0])[0], group, wanted)
        return [found[uri] for uri in uris]

    def _read_rows(self, key: str, group: int, wanted: dict[int, str]) -> dict[str, bytes | ImageError]:
        """The bytes of rows (row: uri). The row group is read piece by piece, up to the last of them."""
        footer = self._footer(key)
        found: dict[str, bytes | ImageError] = {}
        row = footer.first_rows[group]
        try:
            with self._storage.open(key) as file:
                parquet = pq.ParquetFile(file, metadata=footer.metadata, buffer_size=2**20, pre_buffer=False)
                for batch in parquet.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[footer.leaf]):
                    values = batch.column(0)
                    if pa.types.is_struct(values.type):
                        values = pc.struct_field(values, "bytes")
                    for number in range(len(values)):
                        if row + number in wanted:
                            data = values[number].as_py()
                            missing = ImageError("fetch_failed", f"row {row + number} of {key} has no bytes")
                            found[wanted[row + number]] = missing if data is None else data
                    row += len(values)
                    if len(found) == len(wanted):
                        break
        except (StorageError, PermissionError):
            raise
        except FileNotFoundError:
            return dict.fromkeys(wanted.values(), ImageError("fetch_failed", GONE))
        except _BROKEN as error:
            for number, uri in wanted.items():
                reason = f"row {number} of {key}: its row group {group} is damaged ({_line(error)})"
                found.setdefault(uri, ImageError("fetch_failed", reason))
        return found

    def _find(self, uri: str) -> tuple[int, int]:
        """The row of an image and its row group."""
        key, name = _parts(uri)
        footer = self._footer(key)
        if not name:
            raise ImageError("fetch_failed", f"the Parquet file {key} was damaged when it was listed and is whole now")
        if footer.keys is not None:
            row = footer.keys.get(name, -1)
        elif name.isdecimal():
            row = int(name)
        else:
            row = -1
        if not 0 <= row < footer.metadata.num_rows:
            raise ImageError("fetch_failed", f"the Parquet file {key} has no row {name} any more")
        return row, bisect_right(footer.first_rows, row) - 1

    def _footer(self, key: str) -> _Footer:
        try:
            return self._footers.get(key, lambda: self._read_footer(key))
        except FileNotFoundError as error:
            raise ImageError("fetch_failed", GONE) from error
        except (StorageError, PermissionError):
            raise
        except _BROKEN as error:
            raise ImageError("fetch_failed", f"the Parquet file {key} cannot be read ({_line(error)})") from error

    def _read_footer(self, key: str) -> _Footer:
        shown = f"{public_uri(self._storage.uri)}/{key}"
        entry = self._storage.stat(key)
        with self._storage.open(key) as file:
            parquet = pq.ParquetFile(file)
            leaf = image_column(parquet.schema_arrow, self._image, shown)
            assert leaf is not None
            keys = None
            if self._key_column is not None:
                keys = {name: row for row, name in enumerate(_keys(parquet, self._key_column, shown))}
            groups = _groups(parquet.metadata, leaf)
            first_rows = [0, *accumulate(group.num_rows for group in groups)][: len(groups)]
            return _Footer(entry.etag, parquet.metadata, leaf, first_rows, keys)


def _parts(uri: str) -> tuple[str, str]:
    found = split_parquet(uri)
    assert found is not None, f"{uri} has no {PARQUET}"
    return found


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
