"""S3 Inventory: the lists that AWS makes of a bucket, named by a manifest.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.images.inputs.tables import as_rows, csv_batches, unzipped
from proxyclip.images.ref import is_image
from proxyclip.storage.store import Storage, StorageError, public_uri

# As AWS names them in CSV, and in Parquet and ORC, without underscores.
_COLUMNS = ("key", "size", "etag", "islatest", "isdeletemarker")


def read_inventory(storage: Storage, key: str) -> Iterator[pa.RecordBatch]:
    """The images of the bucket that an inventory lists, as rows of `sorting.SCHEMA`.

    storage, key: where its manifest.json is. Its files are in the folder data/ beside the manifest's folder, as AWS
    writes them. Listed are the latest versions of objects whose name is an image's.
    """
    shown = f"{public_uri(storage.uri)}/{key}"
    try:
        manifest = json.loads(storage.read(key))
        bucket, form = manifest["sourceBucket"], manifest["fileFormat"]
        names = [name.strip() for name in manifest["fileSchema"].split(",")] if form == "CSV" else []
        files = [str(file["key"]).rpartition("/")[2] for file in manifest["files"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"input {shown}: this is no manifest of S3 Inventory ({type(error).__name__}: {error})."
        ) from error
    if form not in _READERS:
        raise ValueError(f"input {shown}: its files are {form}; {', '.join(_READERS)} can be read.")
    data = Storage(f"{storage.uri.rstrip('/').rpartition('/')[0]}/data")
    for name in files:
        yield from _read_file(data, name, form, names, bucket)


def _read_file(data: Storage, name: str, form: str, names: list[str], bucket: str) -> Iterator[pa.RecordBatch]:
    shown = f"{public_uri(data.uri)}/{name}"
    try:
        with data.open(name) as file:
            for batch in _READERS[form](file, names):
                yield as_rows(_images(batch, bucket, is_csv=form == "CSV"), shown)
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"input: {shown} is named by the inventory's manifest and does not exist; copy the folder data/ along."
        ) from error
    except (pa.ArrowException, EOFError, OSError, KeyError) as error:
        if isinstance(error, PermissionError):
            raise
        raise ValueError(f"input: {shown}, a file of the inventory, cannot be read ({error}).") from error


def _images(batch: pa.RecordBatch, bucket: str, *, is_csv: bool) -> pa.RecordBatch:
    """Columns uri, size_bytes and etag of the images among the objects. Keys are escaped in CSV only."""
    kept = pa.array([True] * batch.num_rows, pa.bool_())
    for name, counts in (("islatest", "true"), ("isdeletemarker", "false")):
        if name in batch.schema.names:
            text = pc.utf8_lower(batch[name].cast(pa.string()))
            kept = pc.and_(kept, pc.fill_null(pc.equal(text, counts), True))
    batch = batch.filter(kept)
    keys = [unquote_plus(key) if is_csv else key for key in batch["key"].to_pylist()]
    uris = [f"s3://{bucket}/{key}" if is_image(key) else None for key in keys]
    none = pa.nulls(batch.num_rows, pa.string())
    size, etag = (batch[name] if name in batch.schema.names else none for name in ("size", "etag"))
    if pa.types.is_string(size.type):
        size = pc.if_else(pc.equal(size, ""), None, size)
    return pa.RecordBatch.from_arrays([pa.array(uris, pa.string()), size, etag], ["uri", "size_bytes", "etag"])


def _from_csv(file: BinaryIO, names: list[str]) -> Iterator[pa.RecordBatch]:
    plain = [_plain(name) for name in names]
    yield from csv_batches(unzipped(file), [name for name in _COLUMNS if name in plain], plain)


def _from_parquet(file: BinaryIO, names: list[str]) -> Iterator[pa.RecordBatch]:
    parquet = pq.ParquetFile(file)
    wanted = [name for name in parquet.schema_arrow.names if _plain(name) in _COLUMNS]
    for batch in parquet.iter_batches(2**16, columns=wanted):
        yield _renamed(batch)


def _from_orc(file: BinaryIO, names: list[str]) -> Iterator[pa.RecordBatch]:
    from pyarrow import orc  # some builds of pyarrow come without it

    found = orc.ORCFile(file)
    wanted = [name for name in found.schema.names if _plain(name) in _COLUMNS]
    for stripe in range(found.nstripes):
        yield _renamed(found.read_stripe(stripe, wanted))


_READERS: dict[str, Any] = {"CSV": _from_csv, "Parquet": _from_parquet, "ORC": _from_orc}


def _renamed(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.rename_columns([_plain(name) for name in batch.schema.names])


def _plain(name: str) -> str:
    return name.lower().replace("_", "")
