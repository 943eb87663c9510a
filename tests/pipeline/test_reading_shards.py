"""What a read task makes of planned images whose tar or Parquet file was made again, or is gone."""

from __future__ import annotations

import pytest
from corpora import pack, pack_part

from proxyclip.dataset.manifest import Manifest
from proxyclip.images.listing import list_images
from proxyclip.pipeline.stages.read import read_shards
from proxyclip.storage.store import Storage

NAMES = [f"{number}.jpg" for number in range(6)]


@pytest.fixture
def folder(tmp_path):
    """Images that nobody decodes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in [*NAMES, "other.jpg"]:
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_a_file_made_again_costs_what_it_lacks_now_and_no_shard_waits_for_ever(folder, tmp_path, form):
    place, output = Storage(str(tmp_path / "in")), str(tmp_path / "out")
    packed = pack(folder, place, form, parts=1)
    manifest = Manifest(Storage(output))
    manifest.extend_plan(list_images(packed.input), 4)
    (pending,) = manifest.pending()

    def read():
        """The bytes or the reason by name, and the errors of shards."""
        rows = [row for table in read_shards(packed.input, output, pending) for row in table.to_pylist()]
        images = [each for row in rows for each in zip(row["uris"], row["data"], row["fetch_errors"], strict=True)]
        return {packed.name(uri): data or reason for uri, data, reason in images}, {row["error"] for row in rows}

    assert read() == ({name: name.encode() for name in [*NAMES, "other.jpg"]}, {None})
    pack_part(folder, place, form, 0, ["other.jpg"])
    found, errors = read()
    assert found.pop("other.jpg") == b"other.jpg"
    assert errors == {None}
    assert all(f"has no {'member' if form == 'tar' else 'row'} {name}" in reason for name, reason in found.items())
    for entry in list(place.list()):
        place.delete(entry.key)
    found, errors = read()
    assert errors == {None}
    assert {reason.split(";")[0] for reason in found.values()} == {"no such file"}
