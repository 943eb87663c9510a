from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from proxyclip.dataset.commits import committed, create_commit, read_commit, read_commits
from proxyclip.dataset.layout import commit_key, segment_key
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.rows import Failure, LabelledImage
from proxyclip.dataset.segments import Compaction, compact, dissolve, read_sums
from proxyclip.dataset.shards import read_masks, write_shard
from proxyclip.storage.store import Storage

SHARDS_PER_SEGMENT = 4
pytestmark = pytest.mark.usefixtures("short_segments")


def write(storage, shard, mask=b"mask"):
    image = LabelledImage(f"{shard}.jpg", 1, 10, mask, b"c", [0, 1], [6, 3], [0.1 * (shard % 9), 1 / 3], 0.6, 1)
    failures = [Failure(f"{shard}f.jpg", "decode", "empty", "no bytes")] if shard % 3 == 0 else []
    return write_shard(storage, shard, [image], failures, ["sky", "tree"])


def files(storage):
    return {entry.key: storage.read(entry.key) for entry in storage.list()}


def names(storage):
    return [entry.key.removeprefix("commits/") for entry in storage.list("commits")]


def test_full_blocks_become_segments_and_nothing_is_lost(storage):
    commits = [write(storage, shard) for shard in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 13)]
    compact(storage)
    loose = [f"{shard:06d}.json" for shard in (5, 6, 7, 13)]
    assert names(storage) == [*loose, "segment-00000.parquet", "segment-00002.parquet"]
    done = committed(storage)
    assert list(done) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 13]
    assert len(done) == 12
    assert [shard in done for shard in (3, 4, 5, 12)] == [True, False, True, False]
    assert list(read_commits(storage, done)) == commits
    assert list(read_commits(storage, done, {2, 4, 13})) == [commits[2], commits[11]]
    assert [read_commit(storage, commit.shard) for commit in commits] == commits
    assert len(list(read_masks(storage))) == 12
    with pytest.raises(FileNotFoundError, match=r"000004\.json"):
        read_commit(storage, 4)


def test_a_segment_needs_no_code_of_ours_to_be_read(disk, tmp_path):
    commits = [write(disk, shard) for shard in range(4)]
    compact(disk)
    table = pq.read_table(tmp_path / "out" / segment_key(0))
    assert table["masks"].to_pylist() == [vars(commit.files["masks"]) for commit in commits]
    assert table["failures"].is_valid().to_pylist() == [True, False, False, True]
    assert table.schema.metadata[b"proxyclip.schema"] == b"segment/1"


def test_sums_are_the_same_with_and_without_segments(disk):
    for shard in range(11):
        write(disk, shard)
    manifest = Manifest(disk)
    loose = manifest.totals(), manifest.class_sums()
    compact(disk)
    assert (manifest.totals(), manifest.class_sums()) == loose
    sums = read_sums(disk, 1)
    assert (sums.images, sums.labelled, sums.failed) == (5, 4, 1)


def test_statistics_of_segments_come_from_their_feet(disk, tmp_path):
    for shard in range(8):
        write(disk, shard)
    before = Manifest(disk).class_sums()
    compact(disk)
    for entry in disk.list("stats"):
        disk.delete(entry.key)
    assert Manifest(disk).class_sums() == before


def test_a_late_commit_of_a_compacted_shard_does_not_count(storage):
    commits = [write(storage, shard) for shard in range(4)]
    compact(storage)
    assert write(storage, 2, b"of a writer that was thought dead") == commits[2]
    assert names(storage) == ["segment-00000.parquet"]
    storage.write(commit_key(2), b"a commit of one killed before it could see the segment")
    assert read_commit(storage, 2) == commits[2]
    assert list(read_commits(storage, committed(storage))) == commits
    assert [row.mask for row in read_masks(storage)] == [b"mask"] * 4
    compact(storage)
    assert names(storage) == ["segment-00000.parquet"]


def test_a_commit_that_is_compacted_between_listing_and_reading_is_found(disk):
    commits = [write(disk, shard) for shard in range(4)]
    done = committed(disk)
    compact(disk)
    assert list(read_commits(disk, done)) == commits


def test_a_late_writer_whose_commit_is_compacted_while_the_store_compares_it_finds_it(disk, monkeypatch):
    commits = [write(disk, shard) for shard in range(4)]
    create = Storage.create

    def compacted_meanwhile(self, key, data):
        if key == commit_key(2):
            compact(disk)
            raise FileNotFoundError(key)  # as over S3: it existed, and is gone when it is read to compare
        return create(self, key, data)

    monkeypatch.setattr(Storage, "create", compacted_meanwhile)
    assert create_commit(disk, commits[2]) == commits[2]
    assert names(disk) == ["segment-00000.parquet"]


@pytest.mark.parametrize("after", range(6))
def test_a_compaction_that_was_killed_is_ended_by_the_next(tmp_path, monkeypatch, after):
    plain, killed = Storage(str(tmp_path / "plain")), Storage(str(tmp_path / "killed"))
    for storage in (plain, killed):
        commits = [write(storage, shard) for shard in range(9)]
    compact(plain)
    calls = []

    def dying(method):
        def call(self, key, *data):
            calls.append(key)
            if len(calls) > after:
                raise KeyboardInterrupt
            return method(self, key, *data)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "create", dying(Storage.create))
        patch.setattr(Storage, "delete", dying(Storage.delete))
        with pytest.raises(KeyboardInterrupt):
            compact(killed)
    assert list(read_commits(killed, committed(killed))) == commits
    compact(killed)
    assert files(killed) == files(plain)


def test_compactions_and_late_writers_at_once_leave_one_commit_each(storage):
    commits = [write(storage, shard) for shard in range(8)]
    with ThreadPoolExecutor(6) as pool:
        compactions = [pool.submit(compact, storage) for _ in range(2)]
        late = [pool.submit(create_commit, storage, commit) for commit in commits for _ in range(2)]
        reads = [pool.submit(lambda: list(read_commits(storage, committed(storage)))) for _ in range(5)]
    for compaction in compactions:
        compaction.result()
    assert [future.result() for future in late] == [commit for commit in commits for _ in range(2)]
    assert all(read.result() == commits for read in reads)
    compact(storage)
    assert names(storage) == ["segment-00000.parquet", "segment-00001.parquet"]


def test_blocks_are_compacted_while_shards_are_being_committed(disk):
    for shard in (0, 1, 2, 3, 4):
        write(disk, shard)
    compaction = Compaction(disk, committed(disk))
    for shard in (5, 6, 8, 7):
        write(disk, shard)
        compaction.add(shard)
    compaction.close()
    assert names(disk) == ["000008.json", "segment-00000.parquet", "segment-00001.parquet"]


def test_a_dissolved_segment_leaves_the_commits_it_had(disk):
    for shard in range(4):
        write(disk, shard)
    before = files(disk)
    compact(disk)
    commits = list(read_commits(disk, committed(disk)))
    dissolve(disk, 0, commits)
    assert files(disk) == before
    compact(disk)
    dissolve(disk, 0, [commits[0], commits[3]])
    assert list(committed(disk)) == [0, 3]
