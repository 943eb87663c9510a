"""Verify, repair, status and clean where an output keeps features, with masks or alone."""

import dataclasses
import os
import re
import time
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outputs import (
    FEATURES,
    RECORD,
    add_features,
    begin,
    features_row,
    files,
    forge,
    forge_bytes,
    images,
    label_pending,
    rows_of,
    run,
    with_cell,
)

from proxyclip import cli
from proxyclip.dataset.commits import read_commit
from proxyclip.dataset.features.record import begin_features, features_manifest, features_of
from proxyclip.dataset.features.shards import write_features
from proxyclip.dataset.layout import commit_key, segment_key
from proxyclip.dataset.manifest import Manifest, Totals
from proxyclip.dataset.rows import parquet_bytes
from proxyclip.dataset.run_record import RunRecord, begin_run
from proxyclip.dataset.upkeep.clean import clean
from proxyclip.dataset.upkeep.status import status
from proxyclip.dataset.upkeep.verify import repair, verify
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage, StorageError

# 21 images in 7 shards, then one that changes (shard 7) and one that goes: two segments, loose commits of 6 and 7.
FIRST = images(21)
THEN = [ImageRef("001.jpg", 11, "2"), *[ref for ref in images(20) if ref.uri != "001.jpg"]]

pytestmark = pytest.mark.usefixtures("short_segments")


def _output(uri):
    storage = Storage(uri)
    run(storage, FIRST)
    add_features(storage)
    run(storage, THEN)
    add_features(storage)
    return storage


@pytest.fixture
def output(tmp_path):
    return _output(str(tmp_path / "out"))


@pytest.fixture
def alone(disk):
    """An output with features and without masks: 10 images in 4 shards, one of them failed."""
    begin_run(disk, RunRecord("/data", {"vocabulary": None}, "fingerprint"), None)
    begin_features(disk, FEATURES)
    Manifest(disk).extend_plan(images(10), 3)
    return disk


# Each damage is done to the folder of the features, which has commits of its own.
def flip_byte(kept, shard=1):
    key = read_commit(kept, shard).files["features"].key
    data = bytearray(kept.read(key))
    data[len(data) // 2] ^= 1
    kept.write(key, bytes(data))


def lose_file(kept, shard=1, kind="features"):
    kept.delete(read_commit(kept, shard).files[kind].key)


def change_rows(change):
    return lambda kept: forge(kept, 6, "features", change(rows_of(kept, 6, "features")))


def change_cell(column, value):
    return change_rows(lambda rows: with_cell(rows, 0, column, value))


def change_windows(**changes):
    windows = features_row(images(1)[0]).windows
    return change_cell("windows", {**windows, "x": {**windows["x"], **changes}})


def another_commit(kept, of, shard=6, source=""):
    kept.write(commit_key(shard), Storage(f"{kept.uri}/{source}").read(commit_key(of)))


def change_segment(change):
    def damage(kept):
        table = pq.read_table(pa.BufferReader(kept.read(segment_key(1))))
        kept.write(segment_key(1), parquet_bytes(change(table)))

    return damage


def other_sums(table):
    return table.replace_schema_metadata({**table.schema.metadata, b"failed": b"0"})


FILE_6, SEGMENT_1 = r"features/features/000006-\w+.parquet: ", "features/commits/segment-00001.parquet: "
NO_WINDOWS = FILE_6 + "'018.jpg' has windows that do not fit its "
BROKEN = {
    "a flipped byte": (flip_byte, r"features/features/000001-.* bytes are not the \d+ bytes that were committed", [1]),
    "one of a loose commit": (lambda kept: flip_byte(kept, 7), "features/features/000007-.* that were committed", [7]),
    "a lost file": (lose_file, "features/features/000001-.*: is missing", [1]),
    "lost failures": (lambda kept: lose_file(kept, 2, "failures"), "features/failures/000002-.*: is missing", [2]),
    "another image": (change_cell("uri", "001.jpg"), f"{FILE_6}'001.jpg' is not planned for this shard", [6]),
    "an image twice": (
        change_rows(lambda rows: pa.concat_tables([rows, rows.slice(0, 1)])),
        f"{FILE_6}'018.jpg' has 2 rows instead of one",
        [6],
    ),
    "a lost row": (change_rows(lambda rows: rows.slice(1)), f"{FILE_6}'018.jpg' is planned .*, but has no row", [6]),
    "a lost column": (
        change_rows(lambda rows: rows.drop_columns(["max_error"])),
        f"{FILE_6}its columns or their version are not those of features: uri, etag",
        [6],
    ),
    "another etag": (change_cell("etag", "2"), "'018.jpg' has features of version '2' .* version '1' is planned", [6]),
    "another codec": (change_cell("codec", "zip"), f"{FILE_6}'018.jpg' has codec 'zip'; .* compact or exact", [6]),
    "no bytes": (change_cell("bytes", b""), f"{FILE_6}'018.jpg' has no bytes", [6]),
    "no error": (change_cell("max_error", float("nan")), f"{FILE_6}'018.jpg' has max_error nan", [6]),
    "a width of another image": (change_cell("resized_width", 700), f"{NO_WINDOWS}width .*700 when resized", [6]),
    "no pixels": (change_cell("height", 0), rf"{NO_WINDOWS}height \(0 pixels", [6]),
    "no patches": (change_cell("grid_height", 0), f"{NO_WINDOWS}height .* 0 patches", [6]),
    "more patches than pixels": (change_cell("grid_width", 337), f"{NO_WINDOWS}width .* 337 patches", [6]),
    "windows that end too early": (change_windows(starts=[0]), f"{NO_WINDOWS}width", [6]),
    "no windows": (change_windows(starts=[]), f"{NO_WINDOWS}width", [6]),
    "a null": (change_windows(starts=None), f"{NO_WINDOWS}width", [6]),
    "a gap between windows": (change_windows(starts=[0, 400], length=200), f"{NO_WINDOWS}width", [6]),
    "a window twice": (change_windows(starts=[0, 264, 264]), f"{NO_WINDOWS}width", [6]),
    "negative padding": (change_windows(pad_before=-1), f"{NO_WINDOWS}width", [6]),
    "no Parquet": (
        lambda kept: forge_bytes(kept, 6, "features", b"PAR1 but not really PAR1", 2),
        f"{FILE_6}is not readable as Parquet",
        [6],
    ),
    "a scribbled commit": (
        lambda kept: kept.write(commit_key(6), b'{"shard": 6}'),
        "features/commits/000006.json: cannot be read",
        [6],
    ),
    "a renamed commit": (
        lambda kept: another_commit(kept, of=7),
        "features/commits/000006.json: is the commit of shard 7",
        [6],
    ),
    "the commit of the masks": (
        lambda kept: another_commit(kept, of=6, source="../"),
        "features/commits/000006.json: has 0 rows, but the commit of shard 6 says 2",
        [6],
    ),
    "an unplanned commit": (
        lambda kept: another_commit(kept, of=6, shard=99),
        "features/commits/000099.json: is the commit of a shard that is not planned",
        [99],
    ),
    "a scribbled segment": (
        lambda kept: kept.write(segment_key(1), b"PAR1 and then nothing"),
        f"{SEGMENT_1}cannot be read",
        [3, 4, 5],
    ),
    "a lost row of a segment": (
        change_segment(lambda table: table.slice(1)),
        f"{SEGMENT_1}has commits of 2 shards; .* 3 to 5",
        [3],
    ),
    "other sums of a segment": (change_segment(other_sums), f"{SEGMENT_1}the sums in its footer are not", []),
}


@pytest.mark.parametrize(("damage", "said", "shards"), BROKEN.values(), ids=BROKEN)
def test_damage_is_named_and_after_repair_and_another_run_undone(output, damage, said, shards):
    undisturbed = files(output)
    damage(features_of(output))
    report = verify(output)
    found = "\n".join(f"{problem.place}: {problem.what}" for problem in report.problems)
    assert re.search(said, found), found
    assert all(problem.features for problem in report.problems)
    assert all(problem.place.startswith("features/") for problem in report.problems)
    assert repair(output, report) == []
    kept = features_manifest(output)
    assert [shard in kept.committed() for shard in shards] == [False] * len(shards)
    assert len(kept.committed()) == 8 - len(set(shards) - {99})
    assert len(Manifest(output).committed()) == 8
    assert verify(output).problems == []
    add_features(output)
    assert verify(output).unfinished == []
    clean(output, 0)
    assert files(output) == undisturbed


def test_a_whole_output_has_no_problems_and_its_features_are_counted(output):
    report = verify(output)
    assert (report.problems, report.unfinished) == ([], [])
    assert (report.shards, report.images, report.feature_shards) == (8, 22, 8)


def test_over_s3_the_same_holds(s3):
    output = _output(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    undisturbed = files(output)
    flip_byte(features_of(output))
    lose_file(features_of(output), 6)
    report = verify(output)
    assert [problem.shard for problem in report.problems] == [1, 6]
    repair(output, report)
    add_features(output)
    assert (verify(output).problems, files(output)) == ([], undisturbed)


def test_a_shard_without_features_is_not_broken_but_unfinished(output):
    undisturbed = files(output)
    features_of(output).delete(commit_key(6))
    report = verify(output)
    assert (report.problems, report.feature_shards) == ([], 7)
    assert report.unfinished == ["1 of 8 shards have no features yet"]
    add_features(output)
    assert files(output) == undisturbed


def test_an_output_that_keeps_no_features_misses_none(disk):
    run(disk, FIRST)
    report = verify(disk)
    assert (report.problems, report.unfinished, report.feature_shards) == ([], [], 0)
    assert status(disk).features is None
    assert repair(disk, report) == []


def test_an_output_with_features_only_has_no_masks_to_miss(alone):
    assert verify(alone).unfinished == ["4 of 4 shards have no features yet"]
    add_features(alone)
    report = verify(alone)
    assert (report.problems, report.unfinished, report.feature_shards) == ([], [], 4)
    flip_byte(features_of(alone), 3)
    report = verify(alone)
    assert [problem.shard for problem in report.problems] == [3]
    repair(alone, report)
    assert verify(alone).unfinished == ["1 of 4 shards have no features yet"]


def test_features_that_are_kept_exactly_must_all_be_exact(disk):
    run(disk, images(3))
    begin_features(disk, dataclasses.replace(FEATURES, codec="exact"))
    rows = [dataclasses.replace(features_row(image), codec="exact") for image in images(3)]
    write_features(disk, 0, [*rows[:2], dataclasses.replace(rows[2], codec="compact")], [])
    (problem,) = verify(disk).problems
    assert "'002.jpg' has codec 'compact'; with the codec of features.json it is exact" in problem.what


def test_a_row_that_did_not_fit_its_codec_may_be_exact(output):
    change_cell("codec", "exact")(features_of(output))
    assert verify(output).problems == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda kept: kept.delete("features.json"), "is missing; the labelling command with --add-features writes"),
        (lambda kept: kept.write("features.json", b"{"), "cannot be read: .* not JSON"),
    ],
    ids=["lost", "scribbled"],
)
def test_a_broken_record_is_named_and_costs_no_features(output, damage, said):
    undisturbed = files(output)
    damage(features_of(output))
    report = verify(output)
    ((place, what),) = [(problem.place, problem.what) for problem in report.problems]
    assert place == "features/features.json"
    assert re.search(said, what)
    assert repair(output, report) == []
    features_of(output).delete("features.json")
    add_features(output)
    assert files(output) == undisturbed


def test_masks_and_features_of_a_shard_are_repaired_apart(output):
    undisturbed = files(output)
    flip_byte(features_of(output), 7)
    output.delete(read_commit(output, 4).files["masks"].key)
    report = verify(output)
    assert {(problem.shard, problem.features) for problem in report.problems} == {(7, True), (4, False)}
    assert repair(output, report) == [4]
    assert [task.shards for task in Manifest(output).pending()] == [(4,)]
    assert [task.shards for task in features_manifest(output).pending()] == [(7,)]
    run(output, THEN)
    add_features(output)
    assert files(output) == undisturbed


def test_a_storage_that_fails_is_no_broken_shard(output, monkeypatch):
    read = Storage.read

    def failing(self, key):
        if self == features_of(output) and key.startswith("features/"):
            raise StorageError("the network is down")
        return read(self, key)

    monkeypatch.setattr(Storage, "read", failing)
    with pytest.raises(StorageError, match="network is down"):
        verify(output)


def test_status_counts_the_features_beside_the_masks(storage):
    manifest = begin(storage)
    manifest.extend_plan(images(15), 3)
    begin_features(storage, FEATURES)
    add_features(storage, {0, 2})
    label_pending(manifest, {0})
    found = status(storage)
    assert found.totals == Totals(planned=15, labelled=3, failed=0, shards=5, committed=1)
    assert found.features.totals == Totals(planned=15, labelled=5, failed=1, shards=5, committed=2)
    assert not found.features.behind
    label_pending(manifest)
    assert status(storage).features.behind
    add_features(storage)
    assert status(storage).features.complete
    assert not status(storage).features.behind


def test_status_of_features_only_is_that_of_their_commits(alone):
    found = status(alone)
    assert (found.only_features, found.features, found.finished) == (True, None, False)
    assert found.totals == Totals(planned=10, labelled=0, failed=0, shards=4, committed=0)
    add_features(alone, {0, 1, 3})
    for shard, age_s in ((0, 40), (1, 30), (3, 10)):
        date_back(alone, f"features/{commit_key(shard)}", age_s)
    found = status(alone)
    assert found.totals == Totals(planned=10, labelled=7, failed=0, shards=4, committed=3)
    assert found.images_per_s == pytest.approx(4 / 30, rel=0.05)
    assert found.left_s == pytest.approx(3 / (4 / 30), rel=0.05)
    assert 10 <= found.last_commit_s < 310
    add_features(alone)
    found = status(alone)
    assert found.finished
    assert found.failures == {("decode_failed", "no image"): 1}


def date_back(storage, key, seconds):
    then = time.time() - seconds
    os.utime(storage.local / key, (then, then))


def test_clean_removes_features_that_no_commit_names(storage):
    run(storage, images(9))
    add_features(storage, {0, 1})
    whole = files(storage)
    orphans = ("features/failures/000001-0123456789ab.parquet", "features/features/000002-0123456789ab.parquet")
    ours_not = ("features/features/notes.txt", "features/000000-0123456789ab.parquet", "features/x/notes.parquet")
    for key in (*orphans, *ours_not):
        storage.write(key, b"12345")
    assert clean(storage, 24).orphans == ()
    found = clean(storage, 0, dry_run=True)
    assert (sorted(found.orphans), found.size_bytes) == (sorted(orphans), 10)
    assert clean(storage, 0) == found
    assert files(storage) == {**whole, **dict.fromkeys(ours_not, b"12345")}
    add_features(storage)
    assert verify(storage).problems == []


def test_files_and_temporary_files_of_killed_writers_of_features_go_once_they_are_old(disk):
    run(disk, images(9))
    add_features(disk)
    whole = files(disk)
    features_of(disk).delete(segment_key(0))
    old, young = [key for key in whole if key.startswith("features/features/")][:2]
    left = disk.local / "features" / "features" / ".proxyclip-tmp-1"
    left.write_bytes(b"half")
    date_back(disk, old, 7300)
    date_back(disk, f"features/features/{left.name}", 7300)
    found = clean(disk, 2)
    assert (found.orphans, found.temporary) == ((old,), (f"features/features/{left.name}",))
    assert disk.exists(young)
    add_features(disk)
    assert files(disk) == whole


def said(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["proxyclip", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capsys.readouterr().out


def test_the_verify_command_says_what_to_run_for_masks_and_for_features(output, monkeypatch, capsys):
    code, text = said(monkeypatch, capsys, "verify", output.uri)
    assert (code, "8 shards with 22 images and the features of 8 shards read, 0 problems." in text) == (0, True)
    flip_byte(features_of(output))
    code, text = said(monkeypatch, capsys, "verify", output.uri)
    assert (code, "With --repair, the next run with --add-features makes broken features again." in text) == (1, True)
    code, text = said(monkeypatch, capsys, "verify", output.uri, "--repair")
    assert "To make broken features again, run the labelling command with --add-features." in text
    assert "labelled again" not in text
    code, text = said(monkeypatch, capsys, "verify", output.uri)
    assert (code, "Not finished: 1 of 8 shards have no features yet." in text) == (0, True)
    output.delete(read_commit(output, 4).files["masks"].key)
    flip_byte(features_of(output), 2)
    code, text = said(monkeypatch, capsys, "verify", output.uri, "--repair")
    assert "1 shards will be labelled again: run the job again with the same options." in text
    assert "run the labelling command with --add-features" in text


def test_the_status_command_has_a_line_for_features(disk, monkeypatch, capsys):
    manifest = begin(disk)
    manifest.extend_plan(images(15), 3)
    add_features(disk, {0, 2})
    assert "Features: 6 of 15 images (2 of 5 shards).\n" in said(monkeypatch, capsys, "status", disk.uri)[1]
    label_pending(manifest)
    text = said(monkeypatch, capsys, "status", disk.uri)[1]
    rest = "the rest: run the labelling command with --add-features."
    assert f"Features: 6 of 15 images (2 of 5 shards); {rest}" in text
    add_features(disk)
    assert "Features: complete.\n" in said(monkeypatch, capsys, "status", disk.uri)[1]


def test_the_status_command_speaks_of_features_only(alone, monkeypatch, capsys):
    add_features(alone, {0, 2})
    text = said(monkeypatch, capsys, "status", alone.uri)[1]
    assert text.startswith("Features only, no masks: 6 of 10 images, 2 of 4 shards; 1 images failed.\nNot finished: ")
    add_features(alone)
    text = said(monkeypatch, capsys, "status", alone.uri)[1]
    assert "10 of 10 images, 4 of 4 shards; 1 images failed.\nFinished.\n" in text


def test_a_relabelled_output_is_checked_like_any_other(tmp_path):
    storage = Storage(str(tmp_path / "relabelled"))
    begin(storage, dataclasses.replace(RECORD, source="/data/labels"))
    Manifest(storage).extend_plan(images(6), 3)
    label_pending(Manifest(storage))
    assert verify(storage).problems == []
    assert status(storage).features is None
