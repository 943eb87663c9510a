"""Exports as a whole: killed and resumed, grown, refused, on a disk and over S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from exports import draw, exported, label, label_pending
from PIL import Image

from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.reading.passes import PassMismatch
from proxyclip.export.options import ExportOptions
from proxyclip.export.registry import FORMATS
from proxyclip.images.listing import ImageRef
from proxyclip.pipeline.export.run import export
from proxyclip.storage.store import Storage

HERE = os.pathsep.join([*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")])
AVAILABLE = [name for name in FORMATS if name != "label-studio"]  # its library is not among those of the tests


def files(place: str | Path) -> dict[str, bytes]:
    """Every file of an export, also the pass's own, by key."""
    storage = Storage(str(place))
    return {entry.key: storage.read(entry.key) for entry in storage.list()}


def shown(place: str | Path) -> dict[str, bytes]:
    return {key: data for key, data in files(place).items() if not key.startswith(".")}


# Runs the command in a process that is killed when it is about to write for the n-th time.
_KILLED = """
import os, signal, sys
from proxyclip.cli import main
from proxyclip.storage.store import Storage

method, left = sys.argv.pop(1), int(sys.argv.pop(1))
real = getattr(Storage, method)

def write(self, *arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, *arguments)

setattr(Storage, method, write)
main()
"""


def killed(output: str, destination: str, to: str, method: str, at: int) -> None:
    """Export in a process of its own that is killed in front of its n-th call of a method of Storage."""
    words = [sys.executable, "-c", _KILLED, method, str(at), "export", output, "--to", to, destination]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": HERE}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("to", ["coco", *(pytest.param(to, marks=pytest.mark.slow) for to in ("png", "webdataset"))])
def test_a_killed_export_goes_on_and_leaves_the_same_bytes(tmp_path, to):
    _kill_and_compare(
        label(tmp_path, [f"{number}.png" for number in range(9)]), tmp_path / "whole", tmp_path / "to", to
    )


@pytest.mark.slow
@pytest.mark.parametrize("to", ["coco", "huggingface", "yolo"])
def test_over_s3_a_killed_export_goes_on_and_leaves_the_same_bytes(tmp_path, s3, to):
    place = s3.uri(f"exports/{to}")
    output = label(tmp_path, [f"{number}.png" for number in range(9)], f"{place}/labels")
    _kill_and_compare(output, tmp_path / "whole", f"{place}/to", to)


def _kill_and_compare(output: str, whole: Path, destination: Path | str, to: str) -> None:
    exported(output, whole, to)
    killed(output, str(destination), to, "write", 4)  # in the midst of a shard
    # In front of the last one of the files that hold all shards.
    killed(output, str(destination), to, "write_file", 1 if to in ("webdataset", "yolo") else 2)
    assert export(ExportOptions(output, str(destination), to)).exit_code == 0
    found, wanted = (
        {key: data.replace(str(place).encode(), b"") for key, data in files(place).items()}
        for place in (destination, whole)
    )
    assert found == wanted


@pytest.mark.parametrize("to", AVAILABLE)
def test_nothing_is_written_among_the_labels_and_a_second_run_writes_nothing(tmp_path, to):
    output = label(tmp_path, ["a.jpg", "b.png", "c/d.jpg", "e.jpg"])
    before = files(output)
    exported(output, tmp_path / "to", to)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "to").rglob("*") if path.is_file()}
    exported(output, tmp_path / "to", to)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "to").rglob("*") if path.is_file()} == times
    assert files(output) == before


@pytest.mark.parametrize("to", AVAILABLE)
def test_an_export_that_grows_is_what_a_new_one_would_be(tmp_path, to):
    output = label(tmp_path, [f"{name}.png" for name in "abcdef"])
    exported(output, tmp_path / "to", to)
    old = shown(tmp_path / "to")
    # b changes, c and d are gone, x is new, and f.jpg comes beside f.png, which is called by its whole name now.
    for uri in ("f.jpg", "x.png"):
        draw(tmp_path / "images" / uri)
    for gone in "cd":
        (tmp_path / "images" / f"{gone}.png").unlink()
    uris = ["a.png", "b.png", "e.png", "f.jpg", "f.png", "x.png"]
    manifest = Manifest(Storage(output))
    manifest.extend_plan([ImageRef(uri, 10, "2" if uri == "b.png" else "1") for uri in uris], 3)
    label_pending(manifest)
    exported(output, tmp_path / "to", to)
    exported(output, tmp_path / "new", to)
    found, wanted = (
        {key: data.replace(str(tmp_path / name).encode(), b"") for key, data in shown(tmp_path / name).items()}
        for name in ("to", "new")
    )
    assert found == wanted
    assert found != old


def test_an_image_that_is_called_by_its_whole_name_now_is_not_there_twice(tmp_path):
    output = label(tmp_path, ["f.png"])
    exported(output, tmp_path / "to", "png")
    assert (tmp_path / "to" / "annotations" / "f.png").exists()
    Manifest(Storage(output)).extend_plan([ImageRef("f.jpg", 10, "1"), ImageRef("f.png", 10, "1")], 3)
    label_pending(Manifest(Storage(output)))
    exported(output, tmp_path / "to", "png")
    assert sorted(path.name for path in (tmp_path / "to" / "annotations").iterdir()) == ["f.jpg.png", "f.png.png"]


def test_an_output_that_is_not_finished_is_exported_as_far_as_it_is(
    tmp_path,
):
    uris = [f"{number}.jpg" for number in range(7)]
    output = label(tmp_path, uris[:3])
    Manifest(Storage(output)).extend_plan([ImageRef(uri, 10, "1") for uri in uris], 3)
    summary = export(ExportOptions(output, str(tmp_path / "to"), "png"))
    assert (summary.exported, summary.shards_not_labelled, summary.exit_code) == (3, 2, 0)
    label_pending(Manifest(Storage(output)))
    summary = export(ExportOptions(output, str(tmp_path / "to"), "png"))
    assert (summary.exported, summary.shards_not_labelled) == (7, 0)
    assert len((tmp_path / "to" / "images.txt").read_text().splitlines()) == 7


@pytest.mark.parametrize("to", ["huggingface", "webdataset"])
def test_images_that_are_gone_or_changed_are_listed(tmp_path, to):
    output = label(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    (tmp_path / "images" / "a.jpg").unlink()
    Image.new("RGB", (7, 5)).save(tmp_path / "images" / "b.jpg")
    (tmp_path / "images" / "c.jpg").write_bytes(b"no image")
    summary = export(ExportOptions(output, str(tmp_path / "to"), to))
    assert (summary.exported, summary.failed, summary.exit_code) == (1, 3, 3)
    lines = (tmp_path / "to" / "failures.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ['{"uri": "a.jpg"', '{"uri": "b.jpg"', '{"uri": "c.jpg"']
    assert "no such file" in lines[0]
    assert "it has 7 x 5 pixels, its mask" in lines[1]
    assert "can no longer be read" in lines[2]


def test_an_image_that_exif_turns_is_exported_upright(tmp_path):
    datasets = pytest.importorskip("datasets")
    output = label(tmp_path, ["a.jpg"])
    path = tmp_path / "images" / "a.jpg"
    upright = Image.open(path).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=turned, quality=95)
    folder = exported(output, tmp_path / "to", "huggingface")
    (row,) = datasets.Dataset.from_parquet(str(folder / "data" / "train-000000.parquet"), cache_dir=str(tmp_path))
    assert row["image"].size == row["mask"].size == upright.size
    assert not row["image"].getexif()


def test_a_destination_of_another_export_is_refused_with_the_difference(tmp_path):
    output = label(tmp_path, ["a.jpg"])
    exported(output, tmp_path / "to", "png", ignore_below=0.25)
    with pytest.raises(PassMismatch, match=r":\n  thresholds: there \[0\.25.*, now None\n"):
        export(ExportOptions(output, str(tmp_path / "to"), "png"))
    with pytest.raises(PassMismatch, match="kind: there 'export png', now 'export coco'"):
        export(ExportOptions(output, str(tmp_path / "to"), "coco"))


def test_a_destination_where_files_would_be_lost_is_refused(tmp_path):
    output = label(tmp_path, ["a.jpg"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for place, message in [
        (tmp_path / "full", "holds files that are no export, such as thesis.tex"),
        (output, "inside the labels"),
        (f"{output}/export", "inside the labels"),
        (tmp_path, "around the labels"),
        (tmp_path / "images" / "masks", "inside the images"),
    ]:
        with pytest.raises(ValueError, match=message):
            export(ExportOptions(output, str(place), "png"))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_a_format_whose_library_is_missing_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    output = label(tmp_path, ["a.jpg"])
    with pytest.raises(ImportError, match=r"pip install 'proxyclip\[coco\]'"):
        export(ExportOptions(output, str(tmp_path / "to"), "coco"))
    assert not (tmp_path / "to").exists()


def test_a_broken_shard_is_named_and_the_others_are_exported(tmp_path):
    output = label(tmp_path, [f"{number}.jpg" for number in range(9)])
    (broken,) = (Path(output) / "masks").glob("000001-*.parquet")
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1] + b"x")
    summary = export(ExportOptions(output, str(tmp_path / "to"), "png"))
    assert summary.exit_code == 1
    assert list(summary.work.errors) == [1]
    assert not (tmp_path / "to" / "dataset_config.py").exists()
    broken.write_bytes(whole)
    exported(output, tmp_path / "to", "png")
    assert len(list((tmp_path / "to" / "annotations").iterdir())) == 9


@pytest.mark.slow
def test_on_ray_the_same_bytes_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", HERE)
    output = label(tmp_path, [f"{number:02d}.jpg" for number in range(20)])
    exported(output, tmp_path / "here", "coco")
    exported(output, tmp_path / "ray", "coco", address="local", concurrency=2)
    assert files(tmp_path / "ray") == files(tmp_path / "here")


def test_the_command_says_what_it_did(tmp_path):
    output = label(tmp_path, ["a.jpg", "b.jpg"])
    command = [sys.executable, str(Path(__file__).parents[2] / "jobs" / "export.py")]
    words = [output, "--to", "png", str(tmp_path / "to"), "--classes", "sky", "naïve: 図"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": HERE})
    assert done.returncode == 0, done.stderr
    assert f"2 images exported as png: {tmp_path / 'to'}" in done.stdout
