"""Features beside masks: written once, read back whole, and refused where they do not fit."""

import dataclasses
import json

import pytest
from outputs import FEATURES, RECORD, add_features, begin, features_row, files, images, run

from proxyclip.dataset.commits import read_commit, read_commits
from proxyclip.dataset.features.record import (
    begin_features,
    features_manifest,
    features_of,
    read_features_record,
    refuse_other_features,
    require_features,
)
from proxyclip.dataset.features.shards import read_features, write_features
from proxyclip.dataset.layout import segment_key
from proxyclip.dataset.manifest import Manifest, Totals
from proxyclip.dataset.rows import Failure
from proxyclip.dataset.run_record import RecipeMismatch
from proxyclip.storage.store import Storage

ROWS = [features_row(image) for image in images(3)]
FAILED = [Failure("b.jpg", "decode", "empty", "no bytes"), Failure("a.jpg", "fetch", "gone", "no file")]


def test_rows_come_back_in_order_of_their_images(storage):
    commit = write_features(storage, 4, ROWS[::-1], FAILED)
    assert (commit.shard, commit.images, commit.labelled, commit.failed) == (4, 5, 3, 2)
    assert read_features(storage, commit) == (ROWS, FAILED[::-1])
    assert read_commit(features_of(storage), 4) == commit
    assert all(key.startswith("features/") for key in files(storage))


def test_the_same_rows_in_any_order_give_the_same_bytes(tmp_path):
    one, other = Storage(str(tmp_path / "one")), Storage(str(tmp_path / "other"))
    assert write_features(one, 0, ROWS, FAILED) == write_features(other, 0, ROWS[::-1], FAILED[::-1])
    assert files(one) == files(other)


def test_a_shard_whose_images_all_failed_has_no_features_and_is_committed(disk):
    commit = write_features(disk, 0, [], FAILED)
    assert read_features(disk, commit) == ([], FAILED[::-1])
    assert list(commit.files) == ["failures"]


def test_of_two_writers_of_a_shard_the_first_ones_rows_count(storage):
    first = write_features(storage, 0, ROWS, [])
    late = [dataclasses.replace(row, bytes=b"late") for row in ROWS]
    assert write_features(storage, 0, late, []) == first
    assert read_features(storage, read_commit(features_of(storage), 0))[0] == ROWS


def test_features_and_masks_are_committed_apart(disk):
    manifest = run(disk, images(12))
    before = files(disk)
    kept = add_features(disk, only={0, 2})
    assert list(kept.committed()) == [0, 2]
    assert [task.shards for task in kept.pending()] == [(1, 3)]
    assert kept.totals() == Totals(planned=12, labelled=5, failed=1, shards=4, committed=2)
    assert manifest.pending() == []
    assert {key: data for key, data in files(disk).items() if not key.startswith("features/")} == before


@pytest.mark.usefixtures("short_segments")
def test_commits_of_features_become_segments_too(storage):
    begin(storage)
    Manifest(storage).extend_plan(images(21), 3)
    manifest = add_features(storage)
    kept = manifest.commits
    assert [kept.exists(segment_key(block)) for block in range(3)] == [True, True, False]
    rows = [read_features(storage, commit) for commit in read_commits(kept, manifest.committed())]
    assert [len(features) + len(failed) for features, failed in rows] == [3] * 7
    assert sorted(row.uri for pair in rows for part in pair for row in part) == [ref.uri for ref in images(21)]
    assert read_features(storage, read_commit(kept, 1))[0] == [features_row(ref) for ref in images(3, start=3)]
    assert manifest.totals() == Totals(planned=21, labelled=18, failed=3, shards=7, committed=7)


def lose(storage, key):
    storage.delete(key)


def flip(storage, key):
    data = bytearray(storage.read(key))
    data[len(data) // 2] ^= 1
    storage.write(key, bytes(data))


@pytest.mark.parametrize(("damage", "kind"), [(lose, FileNotFoundError), (flip, ValueError)])
@pytest.mark.parametrize("name", ["features", "failures"])
def test_a_file_that_is_lost_or_changed_is_named_with_what_to_do(storage, damage, kind, name):
    commit = write_features(storage, 12, ROWS, FAILED)
    key = commit.files[name].key
    damage(features_of(storage), key)
    with pytest.raises(kind) as caught:
        read_features(storage, commit)
    said = str(caught.value)
    assert key in said
    assert "features of shard 12" in said
    assert "verify --repair" in said
    assert "--add-features" in said


def test_the_record_is_written_once_and_read_back(storage):
    assert read_features_record(storage) is None
    refuse_other_features(storage, FEATURES)
    begin_features(storage, FEATURES)
    before = files(storage)
    assert list(before) == ["features/features.json"]
    begin_features(storage, dataclasses.replace(FEATURES, settings={"preset": "another name of the same"}))
    assert files(storage) == before
    assert read_features_record(storage) == require_features(storage) == FEATURES


def test_values_of_the_record_are_compared_as_json_stores_them(disk):
    begin_features(disk, dataclasses.replace(FEATURES, encoder={"sizes": (1, 2)}))
    begin_features(disk, dataclasses.replace(FEATURES, encoder={"sizes": [1, 2]}))


OTHERS = [
    (dataclasses.replace(FEATURES, codec="exact"), r"keeps its features as 'compact', not as 'exact'; give --codec c"),
    (dataclasses.replace(FEATURES, encoder={"model": {}}), "another network, other windows .* or another --output"),
]


@pytest.mark.parametrize(("other", "said"), OTHERS, ids=["codec", "encoder"])
@pytest.mark.parametrize("call", [begin_features, refuse_other_features])
def test_other_features_than_those_that_are_kept_are_refused(disk, call, other, said):
    begin_features(disk, FEATURES)
    before = files(disk)
    with pytest.raises(RecipeMismatch, match=said) as caught:
        call(disk, other)
    assert disk.uri in str(caught.value)
    assert files(disk) == before


DAMAGES = [
    ({"version": 2}, r"version 2, but this version of proxyclip reads 1\. .* make them again with --add-features"),
    ({"codec": None}, "codec is None; it must have type str"),
    ({"dim": "512"}, "dim is '512'; it must have type int"),
    ({"encoder": []}, r"encoder is \[\]; it must have type dict"),
]


@pytest.mark.parametrize(("fields", "said"), DAMAGES, ids=[next(iter(fields)) for fields, _ in DAMAGES])
def test_a_record_that_cannot_be_read_is_refused_with_its_output(disk, fields, said):
    record = json.loads(FEATURES.to_json()) | fields
    features_of(disk).write("features.json", json.dumps(record).encode())
    for call in (read_features_record, require_features, lambda disk: begin_features(disk, FEATURES)):
        with pytest.raises(ValueError, match=said) as caught:
            call(disk)
        assert disk.uri in str(caught.value)
        assert "features.json" in str(caught.value)


def test_who_asks_for_features_that_are_not_there_learns_what_to_do(tmp_path):
    nothing, labelled, relabelled = (Storage(str(tmp_path / name)) for name in ("nothing", "labelled", "relabelled"))
    begin(labelled)
    begin(relabelled, dataclasses.replace(RECORD, source=labelled.uri))
    for output, said in (
        (nothing, "there is no labelled corpus; give the --output of a labelling job"),
        (labelled, "has no features. Run its labelling command again with --add-features"),
        (relabelled, f"was itself relabelled, from {labelled.uri}, and has no features; give that one as --source"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            require_features(output)
        assert said in str(caught.value)
        assert output.uri in str(caught.value)


def test_an_image_that_changed_is_pending_again_for_its_features(disk):
    run(disk, images(6))
    add_features(disk)
    run(disk, [*images(1, etag="2"), *images(5, start=1)])
    kept = features_manifest(disk)
    assert [task.shards for task in kept.pending()] == [(2,)]
    assert kept.totals() == Totals(planned=6, labelled=5, failed=0, shards=3, committed=2)
    add_features(disk)
    (row,) = read_features(disk, read_commit(kept.commits, 2))[0]
    assert (row.uri, row.etag) == ("000.jpg", "2")
