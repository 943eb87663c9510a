"""Labels read again: what counts, without dead rows."""

from __future__ import annotations

import pytest
from outputs import begin, images, label_pending, run

from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.shards import read_masks
from proxyclip.storage.store import Storage


@pytest.fixture
def storage(tmp_path):
    return Storage(str(tmp_path))


def test_an_unfinished_output_opens_and_says_so(storage):
    manifest = begin(storage)
    manifest.extend_plan(images(12), 3)
    label_pending(manifest, only=[0, 2])
    labels = Labels.open(storage)
    assert not labels.finished
    assert [commit.shard for commit in labels.commits()] == [0, 2]
    assert [image.uri for image in labels.images()] == [image.uri for image in read_masks(storage)]


def test_dead_rows_are_in_neither_images_nor_index_nor_failures(storage):
    run(storage, images(21))
    run(storage, [*images(10, etag="2"), *images(4, start=16)])
    labels = Labels.open(storage)
    assert labels.dead
    assert labels.finished
    uris = [image.uri for image in labels.images()]
    assert len(uris) == len(set(uris)) == labels.totals.labelled
    assert [uri for table in labels.index(["uri"]) for uri in table["uri"].to_pylist()] == uris
    assert [table["height"].to_pylist() for table in labels.index(["height"])] == [
        table["height"].to_pylist() for table in labels.index()
    ]
    assert [count for _, count in labels.counts()] == [table.num_rows for table in labels.index(["uri"])]
    failed = [failure.uri for failure in labels.failures()]
    assert len(failed) == len(set(failed)) == labels.totals.failed
    assert sorted(uris + failed) == [f"{number:03d}.jpg" for number in [*range(10), *range(16, 20)]]


def test_a_folder_without_a_run_is_refused(storage):
    with pytest.raises(FileNotFoundError, match="give the --output of a labelling job"):
        Labels.open(storage)
