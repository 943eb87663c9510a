"""Files of an output that someone else wrote or changed: refused by name, or harmless."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from proxyclip.dataset.commits import Commit, DataFile, read_commit
from proxyclip.dataset.layout import commit_key
from proxyclip.dataset.masks import confidence_to_png, mask_to_png
from proxyclip.dataset.plan import ShardRange
from proxyclip.dataset.rows import MASKS, PLAN, Failure, LabelledImage, parquet_bytes
from proxyclip.dataset.run_record import RunRecord, begin_run
from proxyclip.dataset.shards import write_shard
from proxyclip.dataset.validate import check_plan, check_table, json_object, plan_head, run_fields
from proxyclip.gallery.preview import PreviewOptions, preview
from proxyclip.images.errors import ImageError
from proxyclip.images.listing import fetch_image
from proxyclip.pipeline.stages.read import read_shards
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

KEY = commit_key(7)
SHA = "0123456789ab" + "c" * 52
ESCAPES = ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "..", "a/..", "x\0.jpg"]


def commit(**changes):
    files = {
        "masks": DataFile(f"masks/000007-{SHA[:12]}.parquet", 3, 1000, SHA),
        "failures": DataFile(f"failures/000007-{SHA[:12]}.parquet", 1, 500, SHA),
    }
    fields = json.loads(Commit(7, files, 4, 3, 1).to_json())
    for path, value in changes.items():
        *parts, last = path.split("__")
        place = fields
        for part in parts:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return json.dumps(fields).encode()


def test_a_commit_of_ours_is_read_as_it_was_written():
    read = Commit.from_json(commit(), KEY)
    assert read.images == 4
    assert Commit.from_json(read.to_json(), KEY) == read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard": "7"}, "commits/000007.json: shard is '7' instead"),
        ({"shard": True}, "shard is True"),
        ({"shard": -1}, "shard is -1 instead of a whole number"),
        ({"shard": 8}, r"commits/000007.json.* instead of '[a-z]+/000008-0123456789ab.parquet'"),
        ({"images": 5}, "commits/000007.json: images is 5, but labelled 3 and failed 1"),
        ({"images": 4.0}, "images is 4.0"),
        ({"labelled": 10**30, "images": 10**30 + 1}, "a whole number from 0 to"),
        ({"labelled": 2, "failed": 2}, "labelled is 2, but the file of masks has 3 rows"),
        ({"failed": ...}, "the fields are .* instead of failed, files, images, labelled, shard"),
        ({"more": 1}, "the fields are .*more.* instead"),
        ({"files": []}, r"files is \[\] instead"),
        ({"files__weights": {}}, "a file of kind 'weights'"),
        ({"files__masks": "x"}, "the file of kind 'masks' is 'x'"),
        ({"files__masks__key": "../../etc/passwd"}, "key is '../../etc/passwd' instead of 'masks/000007-"),
        ({"files__masks__key": "/etc/passwd"}, "key is '/etc/passwd' instead"),
        ({"files__masks__key": f"failures/000007-{SHA[:12]}.parquet"}, "key is 'failures/"),
        ({"files__masks__key": f"masks/000008-{SHA[:12]}.parquet"}, "key is 'masks/000008-"),
        ({"files__masks__key": 3}, "key is 3 instead"),
        ({"files__masks__sha256": "../" + SHA[3:]}, "instead of 64 hex digits"),
        ({"files__masks__sha256": None}, "sha256 is None"),
        ({"files__masks__rows": -3}, "rows is -3"),
        ({"files__masks__size_bytes": 2**70}, "size_bytes is 1180591620717411303424"),
        ({"files__masks__rows": ...}, "the fields are key, sha256, size_bytes instead"),
    ],
    ids=str,
)
def test_a_commit_of_others_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Commit.from_json(commit(**changes), KEY)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b"[]", b"null", b'"x"'])
def test_a_file_that_is_no_json_object_is_named(data):
    with pytest.raises(ValueError, match=r"^run.json: .*delete it, or use another --output"):
        json_object(data, "run.json")


def test_no_reader_follows_a_commit_out_of_the_output(tmp_path):
    output = Storage(str(tmp_path / "out"))
    output.write("commits/000007.json", commit(files__masks__key="../secret"))
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(ValueError, match=r"commits/000007.json, masks: key is '../secret'"):
        read_commit(output, 7)


def record(**changes):
    fields = {"schema_version": 1, "input": "/data", "recipe": {}, "fingerprint": "f", "packages": {}}
    return json.dumps({**fields, **changes}).encode()


@pytest.mark.parametrize(
    "changes",
    [{"input": 3}, {"input": None}, {"recipe": []}, {"fingerprint": {}}, {"packages": "x"}, {"schema_version": "1"}],
    ids=str,
)
def test_a_run_record_of_wrong_types_is_refused(changes):
    assert run_fields(record(), 1)["input"] == "/data"
    with pytest.raises(ValueError, match=f"run.json: {next(iter(changes))} is "):
        run_fields(record(**changes), 1)


def test_a_run_record_of_another_version_is_left_to_the_caller():
    assert run_fields(record(schema_version=99, input=3), 1)["schema_version"] == 99


@pytest.mark.parametrize("value", [None, b"", b"-1", b"1e9", b"x", b"9" * 40, "\u0663".encode()])
def test_the_head_of_a_plan_is_numbers(value):
    head = {b"first_shard": b"3", b"num_shards": b"20", b"num_images": b"99", b"num_superseded": b"0"}
    numbers = {"first_shard": 3, "num_shards": 20, "num_images": 99, "num_superseded": 0}
    assert plan_head(head, "plan/00000.parquet") == numbers
    metadata = {name: text for name, text in {**head, b"num_shards": value}.items() if text is not None}
    with pytest.raises(ValueError, match=r"plan/00000.parquet: num_shards .* instead of a number"):
        plan_head(metadata, "plan/00000.parquet")


def plan(**changes):
    columns = {name: [None, None] if field.nullable else None for name, field in zip(PLAN.names, PLAN, strict=True)}
    columns.update({"shard": [3, 4], "uri": ["a.jpg", "b.jpg"], "size_bytes": [1, 2], "etag": ["", "x"]})
    types = {name: PLAN.field(name).type for name in PLAN.names}
    for name, value in changes.items():
        types[name] = pa.int64() if name == "replaces" else None
        columns[name] = value
    return pa.table({name: pa.array(values, types[name]) for name, values in columns.items() if values is not ...})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"etag": ...}, "the columns are shard, uri, size_bytes.* instead of"),
        ({"other": [1, 2]}, "the columns are .*other.* instead of"),
        ({"uri": [1, 2]}, "column uri has type int64 instead of string"),
        ({"size_bytes": ["1", "2"]}, "column size_bytes has type string"),
        ({"uri": ["a.jpg", None]}, "column uri has 1 nulls"),
        ({"uri": ["a.jpg", ""]}, "column uri has an empty value"),
        ({"shard": [3, 10**15]}, "column shard has values from 3 to 1000000000000000; 3 to 4 are possible"),
        ({"shard": [-1, 3]}, "column shard has values from -1 to 3"),
        ({"replaces": [None, 3]}, "column replaces has values from 3 to 3; 0 to 2 are possible"),
        ({"size_bytes": [1, -5]}, "column size_bytes has values from -5 to 1"),
        ({"size_bytes": [1, 2**62]}, "column size_bytes has values from 1"),
    ],
    ids=str,
)
def test_a_plan_of_others_is_refused(changes, message):
    assert check_plan(plan(), range(3, 5), "plan/00000.parquet").num_rows == 2
    with pytest.raises(ValueError, match=f"^plan/00000.parquet: {message}"):
        check_plan(plan(**changes), range(3, 5), "plan/00000.parquet")


def test_a_table_must_have_the_columns_of_its_kind():
    assert check_table(MASKS.empty_table(), MASKS, "masks/x.parquet").num_rows == 0
    with pytest.raises(ValueError, match=r"masks/x.parquet: the columns are uri instead of"):
        check_table(pa.table({"uri": ["a"]}), MASKS, "masks/x.parquet")


@pytest.mark.parametrize("uri", ESCAPES)
def test_no_name_leads_out_of_input_or_output(tmp_path, uri):
    (tmp_path / "x.jpg").write_bytes(b"secret")
    storage = Storage(str(tmp_path / "in" / "a"))
    storage.write("here.jpg", b"x")
    with pytest.raises(ImageError, match="leads out of the input"):
        fetch_image(storage, uri)
    for act in (storage.read, storage.stat, storage.open, lambda key: storage.write(key, b"")):
        with pytest.raises(ValueError, match="a relative path"):
            act(uri)
    with pytest.raises(ValueError, match="a relative path"):
        storage.create(uri, b"")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "here.jpg", "in", "x.jpg"]


def test_a_plan_with_names_that_lead_out_reads_nothing_there(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"secret")
    Storage(str(tmp_path / "in")).write("good.jpg", b"good")
    output = Storage(str(tmp_path / "out"))
    rows = sorted([*ESCAPES, "good.jpg"])
    columns = {"shard": [0] * len(rows), "uri": rows, "size_bytes": [1] * len(rows), "etag": [""] * len(rows)}
    columns |= {name: [None] * len(rows) for name in PLAN.names if name not in columns}
    head = {b"first_shard": b"0", b"num_shards": b"1", b"num_images": b"%d" % len(rows), b"num_superseded": b"0"}
    head |= PLAN.metadata
    output.write("plan/00000.parquet", parquet_bytes(pa.table(columns, PLAN.with_metadata(head))))
    (table,) = read_shards(str(tmp_path / "in"), output.uri, ShardRange(0, (0,)))
    (row,) = table.to_pylist()
    fetched = dict(zip(row["uris"], zip(row["data"], row["fetch_errors"], strict=True), strict=True))
    assert fetched.pop("good.jpg") == (b"good", None)
    assert set(fetched) == set(ESCAPES)
    assert {data for data, _ in fetched.values()} == {None}


def labelled(uri):
    mask = mask_to_png(np.zeros((4, 5), np.uint8), np.zeros((2, 3), np.uint8))
    confidence = confidence_to_png(np.full((1, 2), 200, np.uint8))
    return LabelledImage(uri, 4, 5, mask, confidence, [0], [20], [0.5], 0.5, 0)


@pytest.fixture
def run(tmp_path):
    """An output with a vocabulary and a record, its images beside it."""
    output = Storage(str(tmp_path / "out"))
    (tmp_path / "in").mkdir()
    begin_run(output, RunRecord(str(tmp_path / "in"), {}, "f"), Vocabulary.from_names(["sky", "tree"]).to_json())
    return output


def write_image(run: Storage, name: str) -> None:
    path = run.local.parent / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4)).save(path, "PNG")


@pytest.mark.parametrize("uri", ESCAPES)
def test_masks_and_previews_of_names_that_lead_out_are_not_written(run, uri):
    with pytest.raises(ValueError, match="leads out of the input"):
        write_shard(run, 0, [labelled(uri)], [], ["sky", "tree"])
    assert write_shard(run, 0, [], [Failure(uri, "fetch", "fetch_failed", "x")], ["sky", "tree"]).failed == 1


def test_paths_in_the_masks_lie_beside_their_image(run):
    names = ["a.jpg", "new\nline.jpg", "..x/a.jpg", "a b#?%.jpg"]
    commit = write_shard(run, 0, [labelled(name) for name in names], [], ["sky", "tree"])
    rows = pq.read_table(Path(run.uri) / commit.files["masks"].key).to_pylist()
    for row in rows:
        for kind in ("mask", "confidence"):
            assert row[kind]["path"] == f"{row['uri']}.{kind}.png"


def test_previews_have_names_that_a_disk_takes(run):
    names = ["a.jpg", "new\nline.png", "sub/" + "x" * 251 + ".jpg", "contact_sheet.png", "\u5716" * 80 + ".jpg"]
    for name in names:
        write_image(run, name)
    write_shard(run, 0, [labelled(name) for name in names], [], ["sky", "tree"])
    keys = preview(PreviewOptions(run.uri))
    assert len(set(keys)) == len(names) + 1
    assert {entry.key for entry in run.list("preview")} == set(keys)
