import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from proxyclip.dataset.commits import committed, read_commit
from proxyclip.dataset.rows import Failure, LabelledImage
from proxyclip.dataset.shards import read_masks, read_shard, read_table, write_shard
from proxyclip.storage.store import Storage

NAMES = ["sky", "tree", "horse"]


def image(uri, **changes):
    made = LabelledImage(
        uri=uri,
        height=4,
        width=5,
        mask=b"\x89PNG mask of " + uri.encode(),
        confidence=b"\x89PNG confidence",
        classes=[0, 2],
        pixels=[12, 3],
        class_confidence=[0.75, 0.5],
        mean_confidence=0.7,
        ignored=5,
    )
    return dataclasses.replace(made, **changes)


IMAGES = [image("a/1.jpg"), image("a/ünï 2.jpg", classes=[2], pixels=[20], class_confidence=[0.25], ignored=0)]
FAILURES = [
    Failure("a/3.jpg", "decode", "decode_failed", "not an image"),
    Failure("b", "fetch", "fetch_failed", "gone"),
]


def test_a_shard_comes_back_as_it_was_written(storage):
    commit = write_shard(storage, 42, IMAGES, FAILURES, NAMES)
    assert (commit.shard, commit.images, commit.labelled, commit.failed) == (42, 4, 2, 2)
    images, failures = read_shard(storage, commit)
    assert failures == FAILURES
    assert [(row.uri, row.mask, row.confidence) for row in images] == [(i.uri, i.mask, i.confidence) for i in IMAGES]
    assert [(row.classes, row.pixels, row.ignored) for row in images] == [
        (i.classes, i.pixels, i.ignored) for i in IMAGES
    ]
    assert images[0].class_confidence == [0.75, 0.5]
    assert images[0].mean_confidence == pytest.approx(0.7)


def test_the_commit_names_what_is_there(storage):
    commit = write_shard(storage, 7, IMAGES, FAILURES, NAMES)
    assert read_commit(storage, 7) == commit
    assert sorted(commit.files) == ["failures", "masks", "stats"]
    for kind, file in commit.files.items():
        data = storage.read(file.key)
        sha256 = hashlib.sha256(data).hexdigest()
        assert (file.size_bytes, file.sha256) == (len(data), sha256)
        assert file.key == f"{kind}/000007-{sha256[:12]}.parquet"
    assert [entry.key for entry in storage.list()] == sorted(
        ["commits/000007.json", *(f.key for f in commit.files.values())]
    )


def test_the_same_rows_in_any_order_give_the_same_bytes(tmp_path):
    one, two = Storage(str(tmp_path / "1")), Storage(str(tmp_path / "2"))
    write_shard(one, 0, IMAGES, FAILURES, NAMES)
    write_shard(two, 0, IMAGES[::-1], FAILURES[::-1], NAMES)
    files = {entry.key: one.read(entry.key) for entry in one.list()}
    assert files == {entry.key: two.read(entry.key) for entry in two.list()}
    assert "time" not in files["commits/000000.json"].decode()


def test_the_files_need_no_code_of_ours_to_be_read(tmp_path):
    commit = write_shard(Storage(str(tmp_path)), 0, IMAGES, FAILURES, NAMES)
    masks = pq.read_table(tmp_path / commit.files["masks"].key)
    assert masks["mask"].to_pylist()[0] == {"bytes": IMAGES[0].mask, "path": "a/1.jpg.mask.png"}
    assert masks.schema.metadata[b"proxyclip.schema"] == b"masks/1"
    foot = pq.read_metadata(tmp_path / commit.files["masks"].key)
    columns = {foot.row_group(0).column(i).path_in_schema: foot.row_group(0).column(i) for i in range(foot.num_columns)}
    assert columns["mask.bytes"].compression == "UNCOMPRESSED"
    assert "RLE_DICTIONARY" not in columns["mask.bytes"].encodings
    assert columns["uri"].compression == "ZSTD"


def test_statistics_add_up_over_the_images(tmp_path):
    storage = Storage(str(tmp_path))
    rows = read_table(storage, write_shard(storage, 3, IMAGES, [], NAMES), "stats").to_pylist()
    assert rows == [
        {"shard": 3, "class": 0, "name": "sky", "images": 1, "pixels": 12, "mean_confidence": 0.75},
        {"shard": 3, "class": 2, "name": "horse", "images": 2, "pixels": 23, "mean_confidence": (1.5 + 5.0) / 23},
    ]


def test_a_kind_without_rows_has_no_file(tmp_path):
    storage = Storage(str(tmp_path))
    assert sorted(write_shard(storage, 0, IMAGES, [], NAMES).files) == ["masks", "stats"]
    only_failed = write_shard(storage, 1, [], FAILURES, NAMES)
    assert sorted(only_failed.files) == ["failures"]
    assert read_shard(storage, only_failed) == ([], FAILURES)


def test_the_first_commit_counts_and_a_late_writer_cannot_touch_it(storage):
    first = write_shard(storage, 5, IMAGES, [], NAMES)
    late = write_shard(storage, 5, [image("a/1.jpg", mask=b"other")], FAILURES, NAMES)
    assert late == first == read_commit(storage, 5)
    assert [row.mask for row in read_masks(storage)] == [row.mask for row in IMAGES]


def test_of_writers_at_once_one_commit_is_returned_to_all(storage):
    def write(n):
        return write_shard(storage, 9, [image("x.jpg", mask=b"%d" % n)], [], NAMES)

    with ThreadPoolExecutor(3) as pool:
        commits = list(pool.map(write, range(3)))
    assert commits.count(commits[0]) == 3
    assert len(list(read_masks(storage))) == 1


def test_what_is_not_committed_is_not_there(tmp_path):
    storage = Storage(str(tmp_path))
    for shard in (2, 0, 1_000_001):
        write_shard(storage, shard, [image(f"{shard}.jpg")], [], NAMES)
    storage.write("masks/000001-0123456789ab.parquet", b"half a file of a killed writer")
    storage.write("commits/.tmp-1234", b"")
    assert list(committed(storage)) == [0, 2, 1_000_001]
    assert [row.uri for row in read_masks(storage)] == ["0.jpg", "2.jpg", "1000001.jpg"]
    with pytest.raises(FileNotFoundError):
        read_commit(storage, 1)


def test_a_file_that_changed_after_its_commit_is_refused(tmp_path):
    storage = Storage(str(tmp_path))
    commit = write_shard(storage, 0, IMAGES, [], NAMES)
    storage.write(commit.files["masks"].key, b"something else")
    with pytest.raises(ValueError, match=r"masks/000000-.*14 bytes.*the commit of shard 0 names .*verify --repair"):
        read_shard(storage, commit)


def test_a_file_that_arrived_short_is_not_committed(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    write = Storage.write
    monkeypatch.setattr(Storage, "write", lambda self, key, data: write(self, key, data[:-1]))
    with pytest.raises(OSError, match="the storage has"):
        write_shard(storage, 0, IMAGES, [], NAMES)
    assert list(committed(storage)) == []


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"classes": [2, 0]}, r"classes \[2, 0\]"),
        ({"classes": [0, 0]}, r"classes \[0, 0\]"),
        ({"classes": [0, 3]}, "from 0 to 2"),
        ({"pixels": [15, 0]}, r"pixels \[15, 0\]"),
        ({"class_confidence": [0.5]}, "2 classes, 2 pixel counts and 1 confidences"),
        ({"ignored": 6}, "15 labelled and 6 ignored pixels.*4 x 5"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(tmp_path, changes, wrong):
    with pytest.raises(ValueError, match=rf"shard 0: 'x.jpg' has .*{wrong}"):
        write_shard(Storage(str(tmp_path)), 0, [image("x.jpg", **changes)], [], NAMES)


def test_an_image_is_labelled_or_failed_but_not_both(tmp_path):
    with pytest.raises(ValueError, match=r"'b' occurs twice"):
        write_shard(Storage(str(tmp_path)), 0, [image("b")], FAILURES, NAMES)
