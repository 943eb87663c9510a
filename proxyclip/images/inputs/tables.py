"""Tables of URIs: Parquet, CSV, or text with one URI a line."""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from proxyclip.images.inputs.sorting import SCHEMA
from proxyclip.storage.store import Storage, StorageError, public_uri

logger = logging.getLogger(__name__)

URI_COLUMNS = ("uri", "url", "path", "file_name")
_SIZE_COLUMNS, _ETAG_COLUMNS = ("size_bytes", "size"), ("etag", "e_tag")
_SECRET = r"(?i)^[a-z0-9+.-]+://[^/]*:[^/]*@|[?&](X-Amz-Signature|X-Goog-Signature|Signature|sig)="
_BATCH_ROWS = 2**16
_CSV_BLOCK_BYTES = 2**24


def read_table(storage: Storage, key: str, uri_column: str | None) -> Iterator[pa.RecordBatch]:
    """The images that a table names, as rows of `sorting.SCHEMA`.

    uri_column: None for the first of URI_COLUMNS that it has, or its only column. A URI without a scheme is relative to
    the table's folder; an absolute path becomes file://PATH. A table that cannot be read as a whole is refused, since
    nobody can tell what it lacks.
    """
    shown = f"{public_uri(storage.uri)}/{key}"
    without = 0
    try:
        with storage.open(key) as file:
            for batch in _rows(file, key, uri_column, shown):
                found = as_rows(batch, shown)
                without += batch.num_rows - found.num_rows
                yield found
    except StorageError:
        raise
    except (pa.ArrowException, EOFError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise ValueError(f"input {shown}: it cannot be read as a table ({error}); mend it or make it again.") from error
    if without:
        logger.warning("input %s: %d rows have no URI and are left out.", shown, without)


def as_rows(batch: pa.RecordBatch, shown: str) -> pa.RecordBatch:
    """Rows of `sorting.SCHEMA` from columns uri, size_bytes and etag of any type. Rows without a uri are left out."""
    uris = pc.utf8_trim_whitespace(batch.column(0).cast(pa.string()))
    has_uri = pc.fill_null(pc.greater(pc.binary_length(uris), 0), False)
    _refuse_secrets(uris, shown)
    uris = pc.replace_substring_regex(uris, "^/+", "file:///")
    try:
        sizes = pc.max_element_wise(pc.fill_null(batch.column(1).cast(pa.int64()), 0), 0)
    except pa.ArrowInvalid as error:
        raise ValueError(f"input {shown}: the sizes of its files are not whole numbers ({error}).") from error
    etags = pc.utf8_trim(pc.fill_null(batch.column(2).cast(pa.string()), ""), '"')
    return pa.RecordBatch.from_arrays([uris, sizes, etags], schema=SCHEMA).filter(has_uri)


def _refuse_secrets(uris: pa.Array, shown: str) -> None:
    """Raise ValueError for a URI with a password or a signature: outputs name images by their URIs."""
    is_secret = pc.fill_null(pc.match_substring_regex(uris, _SECRET), False)
    if pc.any(is_secret).as_py():
        uri = uris.filter(is_secret)[0].as_py()
        raise ValueError(
            f"input {shown}: {public_uri(uri)} has a password or a signature, which would be written to the output; "
            "give the image's plain address (s3://BUCKET/KEY) and credentials apart from it."
        )


def choose(names: Sequence[str], given: str | None, usual: Sequence[str], flag: str, shown: str) -> str:
    """The column that was given, or the first usual one. Raises ValueError, naming all columns, if it is not there."""
    if given is not None and given in names:
        return given
    if given is None and (found := next((name for name in usual if name in names), None)):
        return found
    columns = ", ".join(names) or "no columns"
    if given is not None:
        raise ValueError(f"input {shown}: it has no column {given!r}; {flag} must be one of its columns: {columns}.")
    raise ValueError(
        f"input {shown}: it has no column {' or '.join(usual)}; name with {flag} the one to read: {columns}."
    )


def _rows(file: BinaryIO, key: str, uri_column: str | None, shown: str) -> Iterator[pa.RecordBatch]:
    """Batches with the columns uri, size_bytes and etag, as the table has them."""
    name = key.lower()
    if name.endswith(".parquet"):
        parquet = pq.ParquetFile(file)
        columns = _columns(parquet.schema_arrow.names, uri_column, shown)
        wanted = [column for column in columns if column]
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=wanted):
            yield _three(batch, columns)
        return
    plain = unzipped(file) if name.endswith(".gz") else file
    if name.removesuffix(".gz").endswith(".txt"):
        lines = io.TextIOWrapper(plain, encoding="utf-8-sig")
        while some := list(islice(lines, _BATCH_ROWS)):
            given = [line for line in map(str.strip, some) if line]
            yield _three(pa.RecordBatch.from_arrays([pa.array(given, pa.string())], ["uri"]), ("uri", None, None))
        return
    names = pv.open_csv(plain).schema.names
    columns = _columns(names, uri_column, shown)
    plain.seek(0)
    for batch in csv_batches(plain, [column for column in columns if column]):
        yield _three(batch, columns)


def unzipped(file: BinaryIO) -> IO[bytes]:
    """A gzip file, to be read as what it holds."""
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file))


def csv_batches(file: IO[bytes], wanted: list[str], names: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Some columns of a CSV file, all as text. names: of all columns; None if the first line has them."""
    yield from pv.open_csv(
        file,
        pv.ReadOptions(block_size=_CSV_BLOCK_BYTES, column_names=names),
        pv.ParseOptions(newlines_in_values=True),
        pv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=wanted,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _columns(names: Sequence[str], uri_column: str | None, shown: str) -> tuple[str, str | None, str | None]:
    usual = URI_COLUMNS if len(names) != 1 else (*URI_COLUMNS, names[0])
    uri = choose(names, uri_column, usual, "--uri-column", shown)
    size, etag = (next((name for name in some if name in names), None) for some in (_SIZE_COLUMNS, _ETAG_COLUMNS))
    return uri, size, etag


def _three(batch: pa.RecordBatch, columns: Sequence[str | None]) -> pa.RecordBatch:
    """The columns uri, size_bytes and etag; nulls for what the table lacks."""
    found = [pa.nulls(batch.num_rows, pa.string()) if name is None else batch.column(name) for name in columns]
    return pa.RecordBatch.from_arrays(found, ["uri", "size_bytes", "etag"])
