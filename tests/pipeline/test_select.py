"""`select`: from an output to a list of images, and the list back into gallery and export."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from exports import exported, label
from exports import masks as masks_of
from gaussians import NAMES, draw, vocabulary, write_output
from labelling import files
from outputs import RECORD

from proxyclip.commands.adapting import select as select_command
from proxyclip.dataset.features.record import features_of
from proxyclip.dataset.layout import EMBEDDINGS, commit_key
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.passes import PassMismatch
from proxyclip.dataset.run_record import begin_run
from proxyclip.images.listing import ImageRef
from proxyclip.pipeline.select.options import SelectOptions
from proxyclip.pipeline.select.run import LIST, select
from proxyclip.storage.store import Storage


@pytest.fixture(scope="module")
def words():
    return vocabulary()


@pytest.fixture
def output(tmp_path, words):
    """The URI of an output with features: 40 images in shards of four, of which one shows a lamp."""
    uri = str(tmp_path / "labels")
    write_output(Storage(uri), [*draw(39, present=(0, 1, 2, 3, 4)), *draw(1, present=(5,), first=39)], words)
    return uri


@pytest.fixture
def options(output, tmp_path):
    return SelectOptions(output, str(tmp_path / "chosen"), count=6)


@pytest.fixture
def plain(tmp_path):
    """An output without features, whose photographs are on a disk."""
    return label(tmp_path / "plain", [f"{number:02d}.jpg" for number in range(12)])


def rows_of(options: SelectOptions) -> list[dict[str, str]]:
    return list(csv.DictReader(Storage(options.output).read(LIST).decode().splitlines()))


def test_the_list_names_images_of_every_class_and_says_why(options, capsys):
    assert select_command(options) == 0
    rows = rows_of(options)
    assert len({row["uri"] for row in rows}) == 6
    assert rows[0]["uri"] == "0039.jpg"
    assert rows[0]["class"] == "lamp"
    chosen = {row["uri"] for row in rows}
    labels = [image.label for image in draw(39, (0, 1, 2, 3, 4)) if image.uri in chosen]
    seen = {NAMES[index] for index in np.unique(labels)}
    assert seen == set(NAMES) - {"lamp"}
    assert all(0 < float(row["share"]) <= 1 and 0 <= float(row["doubt"]) <= 1 for row in rows)
    assert "Chose 6 of 40 images" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_bytes_after_a_stop_and_for_any_number_of_workers(options, output, tmp_path, monkeypatch):
    select(options)
    undisturbed = Storage(options.output).read(LIST)
    here = [*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, here)))
    there = dataclasses.replace(options, output=str(tmp_path / "there"), address="local", concurrency=2)
    select(there)
    assert Storage(there.output).read(LIST) == undisturbed
    stopped = dataclasses.replace(options, output=str(tmp_path / "stopped"))
    features = features_of(Storage(output))
    commit = features.read(commit_key(7))
    features.delete(commit_key(7))
    assert "--add-features" in select(stopped).work.errors[7]
    assert select_command(stopped) == 1
    assert not Storage(stopped.output).exists(LIST)
    features.write(commit_key(7), commit)
    assert select(stopped).work.finished
    assert files(stopped.output).items() >= {LIST: undisturbed}.items()


def test_another_count_needs_no_second_look(options, monkeypatch):
    select(options)
    six = [row["uri"] for row in rows_of(options)]

    def look(*_):
        raise AssertionError("looked again")

    monkeypatch.setattr("proxyclip.pipeline.select.work.LookShard.__call__", look)
    select(dataclasses.replace(options, count=9))
    assert [row["uri"] for row in rows_of(options)][:6] == six
    select(dataclasses.replace(options, count=1000))
    assert len(rows_of(options)) == 40


def test_dead_rows_are_not_chosen(options, output):
    fewer = [image for image in draw(40) if image.uri != "0039.jpg"]
    Manifest(Storage(output)).extend_plan([ImageRef(image.uri, 10, "1") for image in fewer], 4)
    select(dataclasses.replace(options, count=100))
    assert {row["uri"] for row in rows_of(options)} == {image.uri for image in fewer}


def test_the_printed_commands_show_and_export_what_was_chosen(plain, tmp_path, capsys):
    """Without features too; both are typed as printed."""
    from proxyclip.cli import app

    options = SelectOptions(plain, str(tmp_path / "to look at"), count=3)
    assert select_command(options) == 0
    chosen = {row["uri"] for row in rows_of(options)}
    gallery, task = [shlex.split(line) for line in capsys.readouterr().out.splitlines()[-2:]]
    assert app.cli(args=gallery[1:]) == 0
    assert "Gallery of 3 of 12 images" in capsys.readouterr().out
    assert app.cli(args=task[1:]) == 0
    annotations = Storage(f"{options.output}/cvat").read("annotations.xml").decode()
    assert set(re.findall(r'<image [^>]*name="([^"]+)"', annotations)) == chosen
    assert app.cli(args=gallery[1:]) == 0  # again, over the first one
    assert select(options).work.finished


def test_an_export_of_some_images_reads_other_lists_too(plain, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("03.jpg\n11.jpg\nnot there.jpg\n")
    png = exported(plain, tmp_path / "png", "png", only=str(listed))
    assert {path.stem for path in png.rglob("*.png")} == {"03", "11"}
    listed.write_text("03.jpg\n")
    with pytest.raises(PassMismatch, match="only"):
        exported(plain, png, "png", only=str(listed))


def test_corrected_labels_of_some_images_are_enough_to_calibrate(plain, tmp_path):
    from proxyclip.evaluation.calibration.calibrate import calibrate
    from proxyclip.evaluation.calibration.options import CalibrateOptions

    options = SelectOptions(plain, str(tmp_path / "chosen"), count=5)
    select(options)
    chosen = {row["uri"] for row in rows_of(options)}
    png = exported(plain, tmp_path / "png", "png", only=f"{options.output}/{LIST}")
    folder = next(path for path in png.rglob("*.png")).parent
    found = calibrate(CalibrateOptions(plain, str(folder), min_images=5, to=str(tmp_path / "calibration")))
    assert set(found.report["sample"]) == chosen < set(masks_of(plain))
    assert found.report["accuracy"] == 1


def test_what_cannot_start_says_why(options, output, plain, tmp_path, words):
    with pytest.raises(ValueError, match="--count is 0"):
        SelectOptions(output, options.output, count=0)
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        select(SelectOptions(str(tmp_path / "nothing"), options.output))
    begin_run(Storage(str(tmp_path / "empty")), RECORD, {"name": "ours", "classes": list(NAMES)})
    with pytest.raises(ValueError, match="no labelled images yet"):
        select(SelectOptions(str(tmp_path / "empty"), options.output))
    with pytest.raises(ValueError, match="inside the labels"):
        select(dataclasses.replace(options, output=f"{output}/chosen"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"no selection, such as notes\.txt"):
        select(dataclasses.replace(options, output=str(tmp_path / "taken")))
    assert not Path(options.output).exists()


def test_without_text_embeddings_the_doubt_comes_from_the_confidence(options, output):
    select(options)
    by_margin = {row["uri"]: row["doubt"] for row in rows_of(options)}
    Storage(output).delete(EMBEDDINGS)
    with pytest.raises(PassMismatch, match="features"):
        select(options)
    other = dataclasses.replace(options, output=f"{options.output} again")
    select(other)
    tables = list(Labels.open(output).index(("uri", "mean_confidence")))
    stored = {row["uri"]: 1 - row["mean_confidence"] for each in tables for row in each.to_pylist()}
    for row in rows_of(other):
        assert float(row["doubt"]) == pytest.approx(stored[row["uri"]], abs=1e-4)
        assert row["doubt"] != by_margin.get(row["uri"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.csv", "name,score\na.jpg,1\n", "names no column uri"),
        ("list.parquet", "no parquet", "cannot be read"),
        ("list.txt", "\n", "names no image"),
        ("list.txt", "other.jpg\n", "none of its 1 images"),
    ],
)
def test_lists_that_fit_nothing_are_refused(plain, tmp_path, name, content, message):
    from proxyclip.gallery.build import gallery
    from proxyclip.gallery.options import GalleryOptions

    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        gallery(GalleryOptions(plain, only=str(tmp_path / name)))
    with pytest.raises(ValueError, match=message):
        exported(plain, tmp_path / "png", "png", only=str(tmp_path / name))
    assert not (tmp_path / "png").exists()
