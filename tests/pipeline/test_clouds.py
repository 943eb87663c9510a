"""Whole runs over Azure Blob Storage and Google Cloud Storage leave the files that a run on a disk leaves."""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

import pytest
from labelling import draw, embedded, small_options
from outputs import files

from proxyclip.dataset.upkeep.verify import verify
from proxyclip.pipeline.cluster.join import cluster
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage


@pytest.fixture(scope="module")
def one_cluster(azure, gcs):
    """Started after the servers, so that its workers know where they are."""
    with cluster("local", verbose=False):
        yield


@pytest.fixture(scope="module")
def on_disk(one_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "images"
    draw(folder, 10)
    (folder / "broken.jpg").write_bytes(b"no image")
    options = embedded(small_options(folder, shard_size=4))
    assert label(options).labelled == 10
    return options


def content(output: str) -> dict[str, bytes]:
    """The files that do not depend on the place."""
    return {key: data for key, data in files(Storage(output)).items() if not key.startswith(("run.json", "plan/"))}


@pytest.mark.parametrize("kind", ["azure", "gcs"])
def test_a_run_over_a_store_makes_the_files_of_a_run_on_a_disk(kind, on_disk, request):
    root = request.getfixturevalue(kind).uri(f"bucket/{uuid.uuid4().hex}")
    corpus = Storage(f"{root}/corpus")
    for path in Path(on_disk.input).rglob("*.jpg"):
        corpus.write(str(path.relative_to(on_disk.input)), path.read_bytes())
    options = dataclasses.replace(on_disk, input=corpus.uri, output=f"{root}/labels")
    summary = label(options)
    assert (summary.labelled, summary.failed) == (10, 1)
    assert content(options.output) == content(on_disk.output)
    report = verify(Storage(options.output))
    assert (report.images, report.problems) == (11, [])
    before = files(Storage(options.output))
    assert label(options).exit_code == 3
    assert files(Storage(options.output)) == before
