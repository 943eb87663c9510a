"""One folder of images in every form that an input may have."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.shards import read_masks
from proxyclip.storage.store import Storage

FORMS = ("files", "table", "parquet", "tar")


@dataclass(frozen=True)
class Corpus:
    """An input, and how the uri of an image there tells the image's name in the folder."""

    input: str
    name: Callable[[str], str]

    def results(self, output: str) -> dict[str, tuple]:
        """All that an output says of each image, by its name."""
        return {
            self.name(row.uri): tuple(getattr(row, field) for field in vars(row) if field != "uri")
            for row in read_masks(Storage(output))
        }


def pack(folder: Path, to: Storage, form: str, parts: int = 3) -> Corpus:
    """Write the images of a folder below a storage in a form; tables, Parquet and tar files in several parts."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if form == "files":
        for name in names:
            to.write(f"files/{name}", (folder / name).read_bytes())
        return Corpus(f"{to.uri}/files", str)
    if form == "table":
        pack(folder, to, "files")
        root = to.uri if "://" in to.uri else f"file://{to.uri}"
        for part in range(parts):
            lines = csv.writer(text := io.StringIO())
            lines.writerow(["id", "url", "size"])
            lines.writerows(
                [0, f"{root}/files/{name}", to.stat(f"files/{name}").size_bytes] for name in names[part::parts]
            )
            to.write(f"tables/{part}.csv", text.getvalue().encode())
        return Corpus(f"{to.uri}/tables/{{0..{parts - 1}}}.csv", lambda uri: uri.partition("/files/")[2])
    for part in range(parts):
        pack_part(folder, to, form, part, names[part::parts])
    if form == "parquet":
        return Corpus(f"{to.uri}/parquet;key-column=name", lambda uri: uri.partition(".parquet#")[2])
    return Corpus(f"{to.uri}/tars/*.tar", lambda uri: uri.partition(".tar!")[2])


def pack_part(folder: Path, to: Storage, form: str, part: int, names: list[str]) -> None:
    """Write one Parquet or tar file with some images."""
    buffer = io.BytesIO()
    if form == "parquet":
        images = [{"bytes": (folder / name).read_bytes(), "path": Path(name).name} for name in names]
        pq.write_table(pa.table({"image": images, "name": names}), buffer, row_group_size=2)
        to.write(f"parquet/part-{part}.parquet", buffer.getvalue())
        return
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            tar.add(folder / name, name)
    to.write(f"tars/train-{part:04d}.tar", buffer.getvalue())
