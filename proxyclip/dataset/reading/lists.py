"""Lists of images: files that name some images of an output."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.dataset.reading.labels import Labels
from proxyclip.storage.store import Storage, public_uri

_SHOWN = 3


def read_uris(file: str) -> frozenset[str]:
    """The uris in a list: a .csv or .parquet file with a column `uri`, or a text file with a uri a line.

    Raises FileNotFoundError or ValueError, with the file's name.
    """
    folder, slash, name = file.rpartition("/")
    data = Storage(folder or slash or ".").read(name)
    where = f"--only {public_uri(file)}"
    try:
        if name.lower().endswith(".parquet"):
            found = pq.read_table(pa.BufferReader(data), columns=["uri"])["uri"].to_pylist()
        elif name.lower().endswith(".csv"):
            rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
            if "uri" not in (rows.fieldnames or ()):
                raise ValueError("its first line names no column uri")
            found = [row["uri"] for row in rows]
        else:
            found = data.decode("utf-8-sig").splitlines()
    except (ValueError, KeyError, csv.Error, pa.ArrowException) as error:
        raise ValueError(
            f"{where}: the list cannot be read: {error}. Give a .csv or .parquet file with a column uri, as "
            "`proxyclip select` writes, or a text file with a uri a line."
        ) from error
    uris = frozenset(filter(None, found))
    if not uris:
        raise ValueError(f"{where}: the list names no image.")
    return uris


def refuse_strangers(labels: Labels, uris: Collection[str], file: str) -> None:
    """Raise ValueError if none of the images of a list has labels. Reads uris until it meets one that has."""
    wanted = pa.array(sorted(uris), pa.string())
    for table in labels.index(["uri"]):
        if pc.any(pc.is_in(table["uri"], value_set=wanted)).as_py():
            return
    shown = ", ".join(sorted(uris)[:_SHOWN]) + (", ..." if len(uris) > _SHOWN else "")
    raise ValueError(
        f"--only {public_uri(file)}: none of its {len(uris)} images ({shown}) has labels in "
        f"{public_uri(labels.storage.uri)}. A list names images as the output does: relative to the input."
    )
