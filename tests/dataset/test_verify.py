import io
import re
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outputs import files, forge, forge_bytes, images, rows_of, run, with_cell
from PIL import Image

from proxyclip import cli
from proxyclip.commands import upkeep
from proxyclip.dataset import commits
from proxyclip.dataset.commits import read_commit
from proxyclip.dataset.layout import commit_key, segment_key
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.masks import confidence_to_png, mask_to_png
from proxyclip.dataset.rows import LabelledImage, parquet_bytes
from proxyclip.dataset.shards import write_shard
from proxyclip.dataset.upkeep.clean import clean
from proxyclip.dataset.upkeep.shard_check import check_shard
from proxyclip.dataset.upkeep.verify import repair, verify
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage, StorageError
from proxyclip.vocabulary.palette import default_palette

# 21 images in 7 shards, then one that changes (shard 7) and one that goes: two segments, loose commits of 6 and 7.
FIRST = images(21)
THEN = [ImageRef("001.jpg", 11, "2"), *[ref for ref in images(20) if ref.uri != "001.jpg"]]


pytestmark = pytest.mark.usefixtures("short_segments")


def _output(uri):
    storage = Storage(uri)
    run(storage, FIRST)
    run(storage, THEN)
    return storage


@pytest.fixture
def output(tmp_path):
    return _output(str(tmp_path / "out"))


def flip_byte(storage, shard=1):
    key = read_commit(storage, shard).files["masks"].key
    data = bytearray(storage.read(key))
    data[len(data) // 2] ^= 1
    storage.write(key, bytes(data))


def delete_file(storage, shard=1, kind="masks"):
    storage.delete(read_commit(storage, shard).files[kind].key)


def duplicate_image(storage):
    rows = rows_of(storage, 6, "masks")
    forge(storage, 6, "masks", pa.concat_tables([rows, rows.slice(0, 1)]))


def lose_image(storage):
    forge(storage, 6, "masks", rows_of(storage, 6, "masks").slice(1))


def rename_image(storage):
    forge(storage, 6, "masks", with_cell(rows_of(storage, 6, "masks"), 0, "uri", "other.jpg"))


def break_mask(storage):
    forge(storage, 6, "masks", with_cell(rows_of(storage, 6, "masks"), 0, "mask", {"bytes": b"\x89PNG", "path": "x"}))


def swap_mask(storage):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((9, 6), np.uint8)).save(buffer, "PNG")
    mask = {"bytes": buffer.getvalue(), "path": "x"}
    forge(storage, 6, "masks", with_cell(rows_of(storage, 6, "masks"), 0, "mask", mask))


def change_size(storage):
    forge(storage, 6, "masks", with_cell(rows_of(storage, 6, "masks"), 0, "height", 10))


def change_pixels(storage):
    rows = rows_of(storage, 6, "masks")
    pixels = rows["pixels"].to_pylist()[0]
    forge(storage, 6, "masks", with_cell(rows, 0, "pixels", [pixels[0] + 1, *pixels[1:]]))


def edit_stats(storage):
    forge(storage, 6, "stats", with_cell(rows_of(storage, 6, "stats"), 0, "pixels", 1))


def drop_column(storage):
    forge(storage, 6, "masks", rows_of(storage, 6, "masks").drop_columns(["ignored"]))


def no_parquet(storage):
    forge_bytes(storage, 6, "stats", b"PAR1 but not really PAR1", 3)


def scribble_commit(storage):
    storage.write(commit_key(6), b'{"shard": 6}')


def unplanned_commit(storage):
    storage.write(commit_key(99), storage.read(commit_key(6)))


def another_shards_commit(storage):
    storage.write(commit_key(6), storage.read(commit_key(7)))


def scribble_segment(storage):
    storage.write(segment_key(1), b"PAR1 and then nothing")


def lose_row_of_segment(storage):
    table = pq.read_table(pa.BufferReader(storage.read(segment_key(1))))
    storage.write(segment_key(1), parquet_bytes(table.slice(1)))


def change_sums_of_segment(storage):
    table = pq.read_table(pa.BufferReader(storage.read(segment_key(1))))
    head = {**table.schema.metadata, b"labelled": b"1"}
    storage.write(segment_key(1), parquet_bytes(table.replace_schema_metadata(head)))


def edit_class_stats(storage):
    table = pq.read_table(pa.BufferReader(storage.read("class_stats.parquet")))
    storage.write("class_stats.parquet", parquet_bytes(with_cell(table, 1, "pixels", 1)))


BROKEN = [
    (flip_byte, r"masks/000001-.*: its \d+ bytes are not the \d+ bytes that were committed", [1]),
    (lambda storage: flip_byte(storage, 6), r"masks/000006-.*bytes that were committed", [6]),
    (delete_file, r"masks/000001-.*: is missing", [1]),
    (lambda storage: delete_file(storage, 7, "stats"), r"stats/000007-.*: is missing", [7]),
    (lambda storage: delete_file(storage, 2, "failures"), r"failures/000002-.*: is missing", [2]),
    (duplicate_image, r"masks/000006-.*'018.jpg' has 2 rows instead of one", [6]),
    (lose_image, r"masks/000006-.*'018.jpg' is planned for this shard, but has no row", [6]),
    (rename_image, r"masks/000006-.*'other.jpg' is not planned for this shard", [6]),
    (break_mask, r"masks/000006-.*'018.jpg': mask: the 4 bytes are not a complete PNG", [6]),
    (swap_mask, r"masks/000006-.*'018.jpg': mask has shape \(9, 6\).*the image is", [6]),
    (change_size, r"masks/000006-.*'018.jpg': mask has shape .*the image is \(10, ", [6]),
    (change_pixels, r"masks/000006-.*'018.jpg': the pixels per class in the mask are not", [6]),
    (edit_stats, r"stats/000006-.*not the sums of the masks", [6]),
    (drop_column, r"masks/000006-.*its columns .*: uri, height", [6]),
    (no_parquet, r"stats/000006-.*is not readable as Parquet", [6]),
    (scribble_commit, r"commits/000006.json: cannot be read", [6]),
    (unplanned_commit, r"commits/000099.json: is the commit of a shard that is not planned", [99]),
    (another_shards_commit, r"commits/000006.json: is the commit of shard 7", [6]),
    (scribble_segment, r"commits/segment-00001.parquet: cannot be read", [3, 4, 5]),
    (lose_row_of_segment, r"segment-00001.parquet: has commits of 2 shards; .* 3 to 5", [3]),
    (change_sums_of_segment, r"segment-00001.parquet: the sums in its footer are not", []),
    (edit_class_stats, r"class_stats.parquet: the statistics are not the sums", []),
]


def name(case):
    return getattr(case, "__name__", "").replace("<lambda>", "")


@pytest.mark.parametrize(("damage", "said", "shards"), BROKEN, ids=map(name, (damage for damage, _, _ in BROKEN)))
def test_damage_is_named_and_after_repair_and_another_run_undone(output, damage, said, shards):
    undisturbed = files(output)
    assert verify(output).problems == []
    damage(output)
    report = verify(output)
    found = "\n".join(f"{problem.place}: {problem.what}" for problem in report.problems)
    assert re.search(said, found), found
    assert repair(output, report) == shards
    assert [shard in Manifest(output).committed() for shard in shards] == [False] * len(shards)
    assert verify(output).problems == []
    run(output, THEN)
    assert verify(output).problems == []
    clean(output, 0)
    assert files(output) == undisturbed


def test_masks_of_many_classes_are_read_as_16_bits(tmp_path):
    storage = Storage(str(tmp_path))
    mask = np.array([[0, 255, 299, 299], [65535, 255, 256, 1]], np.uint16)
    labelled = LabelledImage(
        uri="a.jpg",
        height=2,
        width=4,
        mask=mask_to_png(mask, default_palette(300)),
        confidence=confidence_to_png(np.zeros((1, 1), np.uint8)),
        classes=[0, 1, 255, 256, 299],
        pixels=[1, 1, 2, 1, 2],
        class_confidence=[0.5] * 5,
        mean_confidence=0.5,
        ignored=1,
    )
    commit = write_shard(storage, 0, [labelled], [], [str(number) for number in range(300)])
    assert check_shard(storage, 0, commit, ["a.jpg"], (), 4).problems == []
    assert "confidence (1, 1)" in str(check_shard(storage, 0, commit, ["a.jpg"], (), 2).problems)


def test_over_s3_the_same_holds(s3):
    output = _output(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    undisturbed = files(output)
    flip_byte(output)
    delete_file(output, 6)
    report = verify(output)
    assert {problem.shard for problem in report.problems} == {1, 6}
    assert repair(output, report) == [1, 6]
    run(output, THEN)
    assert (verify(output).problems, files(output)) == ([], undisturbed)


def test_a_shard_without_a_commit_is_not_broken_but_unfinished(output):
    undisturbed = files(output)
    output.delete(commit_key(6))
    output.delete("class_stats.parquet")
    report = verify(output)
    assert (report.problems, report.shards) == ([], 7)
    assert report.unfinished == ["1 of 8 shards are not labelled yet"]
    run(output, THEN)
    assert verify(output).unfinished == []
    assert files(output) == undisturbed


def test_an_output_can_be_verified_while_its_commits_are_compacted(tmp_path, monkeypatch):
    output = Storage(str(tmp_path / "out"))
    monkeypatch.setattr(Manifest, "compact", lambda self: None)
    run(output, FIRST)
    monkeypatch.undo()
    monkeypatch.setattr(commits, "SHARDS_PER_SEGMENT", 3)
    read, left = Storage.read, [True]

    def reading(self, key):
        if key.startswith("commits/") and left and left.pop():
            Manifest(output).compact()
        return read(self, key)

    monkeypatch.setattr(Storage, "read", reading)
    report = verify(output)
    assert (report.problems, report.shards, left) == ([], 7, [])


def test_an_image_that_two_rows_of_the_plan_claim_is_named(output):
    plan = pq.read_table(pa.BufferReader(output.read("plan/00001.parquet")))
    assert plan["uri"].to_pylist() == ["001.jpg", "020.jpg"]
    output.write("plan/00001.parquet", parquet_bytes(with_cell(plan, 0, "replaces", None)))
    report = verify(output)
    assert any("'001.jpg' is in shard 7" in problem.what for problem in report.problems)
    assert {problem.shard for problem in report.problems} == {None}


def test_a_plan_that_cannot_be_read_is_named(output):
    output.write("plan/00000.parquet", b"nothing")
    assert [problem.place for problem in verify(output).problems] == ["plan"]


def test_a_storage_that_fails_is_no_broken_shard(output, monkeypatch):
    read = Storage.read

    def failing(self, key):
        if key.startswith("masks/"):
            raise StorageError("the network is down")
        return read(self, key)

    monkeypatch.setattr(Storage, "read", failing)
    with pytest.raises(StorageError, match="network is down"):
        verify(output)


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["proxyclip", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capsys.readouterr()


def test_the_command_shows_some_problems_and_counts_all(output, monkeypatch, capsys):
    monkeypatch.setattr(upkeep, "SHOWN_PROBLEMS", 10)
    assert command(monkeypatch, capsys, "verify", output.uri)[0] == 0
    for entry in [*output.list("masks"), *output.list("stats"), *output.list("failures")]:
        output.delete(entry.key)
    code, said = command(monkeypatch, capsys, "verify", output.uri)
    lines = said.out.splitlines()
    assert code == 1
    assert sum("is missing" in line for line in lines) == 10
    assert "and 9 more" in said.out
    assert "8 shards with 22 images read, 19 problems." in said.out
    code, said = command(monkeypatch, capsys, "verify", output.uri, "--repair")
    assert (code, "8 shards will be labelled again" in said.out) == (1, True)
    assert command(monkeypatch, capsys, "verify", output.uri)[0] == 0


@pytest.mark.parametrize("word", ["verify", "status", "clean"])
def test_a_folder_that_is_no_output_is_refused(word, tmp_path, monkeypatch, capsys):
    code, said = command(monkeypatch, capsys, word, str(tmp_path))
    assert code == 2
    assert "there is no run.json" in said.err
