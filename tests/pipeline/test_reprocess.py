"""The standing job: images and vocabularies come, change and go, runs are killed or overlap."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from labelling import NAMES, ROOT, data_files, draw, files
from safetensors.numpy import save_file

from proxyclip.cli import run_job
from proxyclip.dataset.run_record import read_names
from proxyclip.dataset.upkeep.status import status
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.pipeline.cluster import join
from proxyclip.pipeline.relabel import run as relabelling
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.relabel.run import relabel
from proxyclip.pipeline.reprocess.options import ReprocessOptions
from proxyclip.pipeline.reprocess.run import reprocess
from proxyclip.pipeline.reprocess.vocabularies import VocabularyFolder
from proxyclip.storage.store import Storage

SMALL = {"preset": "demo", "short_side": 56, "crop": 56, "stride": 56, "shard_size": 5, "threads": 1}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocabularies").mkdir()
    return tmp_path / "vocabularies"


@pytest.fixture
def options(corpus, folder, tmp_path):
    places = {"input": str(corpus), "vocabularies": str(folder), "output": str(tmp_path / "out")}
    return ReprocessOptions(**places, **SMALL, relabel_concurrency=1)


@pytest.fixture
def no_ray(monkeypatch):
    """Call it, and from then on a run that needs Ray fails."""

    def refuse(*_, **__):
        raise AssertionError("there is nothing to do")

    return lambda: monkeypatch.setattr(join, "cluster", refuse)


def give(folder: Path, name: str, classes: list[str], seed: int | None = None) -> None:
    """Write a vocabulary; with a seed, with embeddings of its own."""
    (folder / f"{name}.txt").write_text("\n".join(classes))
    if seed is not None:
        rows = np.random.default_rng(seed).standard_normal((len(classes), 64)).astype(np.float32)
        save_file({"embeddings": rows}, folder / f"{name}.safetensors")


def current(options: ReprocessOptions, name: str) -> dict:
    return json.loads(Path(options.labels, name, "current.json").read_text())


def snapshot(options: ReprocessOptions) -> dict[Path, tuple[int, bytes]]:
    paths = (path for path in Path(options.output).rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def assert_relabelled_afresh(options: ReprocessOptions, name: str, place: Path) -> None:
    """The current version is what `relabel` makes of the vocabulary's file."""
    paths = [Path(options.vocabularies, f"{name}.{suffix}") for suffix in ("txt", "safetensors")]
    vocabulary, *embeddings = (str(path) for path in paths if path.exists())
    relabel(RelabelOptions(options.corpus, str(place), (vocabulary,), tuple(embeddings), concurrency=1))
    version = Path(options.labels, name, current(options, name)["version"])
    assert data_files(version) == data_files(place)
    report = verify(Storage(str(version)))
    assert (report.problems, report.unfinished) == ([], [])


@pytest.mark.usefixtures("one_cluster")
def test_images_come_and_a_run_with_nothing_to_do_touches_nothing(options, folder, corpus, no_ray, tmp_path):
    give(folder, "five", NAMES)
    give(folder, "two", ["red", "green"], seed=1)
    (folder / ".hidden.txt").write_text("")
    done = reprocess(options)
    assert done.last_line() == "reprocess: 10 new images, 2 vocabularies updated, 0 unchanged, 0 failed"
    assert done.exit_code == 0
    first = current(options, "five")
    assert (first["images"], first["labelled"], first["finished"]) == (10, 10, True)
    assert first["versions"] == [first["version"]] == [done.updated["five"]]

    draw(corpus, 3, first=10)
    (corpus / "broken.jpg").write_text("no image")
    before = snapshot(options)
    done = reprocess(options)
    assert done.last_line() == "reprocess: 4 new images, 2 vocabularies updated, 0 unchanged, 0 failed"
    assert done.exit_code == 3
    assert current(options, "five") == {**first, "images": 14, "labelled": 13, "failed": 1, "shards": 3}
    after = snapshot(options)
    changed = {path.name for path, content in before.items() if after[path] != content}
    assert changed == {"current.json", "class_stats.parquet"}
    assert_relabelled_afresh(options, "five", tmp_path / "afresh")

    no_ray()
    done = reprocess(options)
    assert done.last_line() == "reprocess: 0 new images, 0 vocabularies updated, 2 unchanged, 0 failed"
    assert done.exit_code == 3
    assert reprocess(dataclasses.replace(options, max_failures="1")).exit_code == 0
    assert snapshot(options) == after
    # A version that lost a commit is not taken for whole.
    next(Path(options.labels, "five", first["version"], "commits").glob("*")).unlink()
    with pytest.raises(AssertionError, match="nothing to do"):
        reprocess(options)


@pytest.mark.usefixtures("one_cluster")
def test_vocabularies_are_edited_deleted_and_wrong(options, folder, no_ray, tmp_path, monkeypatch):
    give(folder, "city", ["road", "house"], seed=1)
    give(folder, "land", ["field"], seed=2)
    reprocess(options)
    old = current(options, "city")["version"]
    kept = data_files(Path(options.labels, "city", old))

    give(folder, "city", ["road", "house", "tree"], seed=1)
    (folder / "land.txt").unlink()
    (folder / "broken.txt").write_text("cat\ndog\nCat")
    give(folder, "twin", ["one"])
    (folder / "twin.json").write_text('["one"]')
    give(folder, "narrow", ["one"])
    save_file({"embeddings": np.ones((1, 12), np.float32)}, folder / "narrow.safetensors")
    give(folder, "unlucky", ["one"], seed=3)
    (folder / "README.md").write_text("ours")
    execute = relabelling.execute

    def unlucky(run, make_runner):
        if any(target.vocabulary.name == "unlucky" for target in run.targets):
            raise ValueError("no luck")
        return execute(run, make_runner)

    monkeypatch.setattr(relabelling, "execute", unlucky)
    done = reprocess(options)
    monkeypatch.undo()
    assert done.exit_code == 1
    assert done.last_line() == "reprocess: 0 new images, 1 vocabulary updated, 0 unchanged, 5 failed"
    assert done.failed["broken.txt"].startswith('line 3: "Cat" is also the name of class 0')
    assert "have the same name" in done.failed["twin.txt"]
    assert done.failed["twin.json"] == done.failed["twin.txt"]
    assert "width 64" in done.failed["narrow.txt"]
    assert done.failed["unlucky.txt"] == "no luck"
    assert (done.gone, done.ignored) == (["land"], ["README.md", "land.safetensors"])
    assert {"broken.txt", "twin.txt"} <= {line.split(":")[0] for line in done.errors()}
    new = current(options, "city")
    assert new["versions"] == [old, new["version"]] == [old, done.updated["city"]]
    assert data_files(Path(options.labels, "city", old)) == kept
    assert_relabelled_afresh(options, "city", tmp_path / "afresh")
    assert current(options, "land")["finished"]

    # What it said before: its version is still there, and needs no work.
    give(folder, "city", ["road", "house"], seed=1)
    for name in ("broken.txt", "twin.txt", "twin.json", "narrow.txt", "unlucky.txt"):
        (folder / name).unlink()
    no_ray()
    assert reprocess(options).updated == {"city": old}
    assert current(options, "city")["versions"] == [new["version"], old]
    Path(options.labels, "city", "current.json").write_text("{}")
    done = reprocess(options)
    assert "is damaged. Delete it" in done.failed["labels/city"]
    assert (done.exit_code, done.gone) == (1, ["land"])


@pytest.mark.usefixtures("one_cluster")
def test_a_run_uses_what_it_read_and_does_not_overtake_a_newer_one(options, folder, monkeypatch, no_ray):
    """Both vocabularies change while the run works; then a whole other run starts and ends before it goes on."""
    give(folder, "city", ["road", "house"], seed=1)
    give(folder, "land", ["field", "hill"], seed=2)
    read = VocabularyFolder.read
    others = []

    def read_slowly(self):
        found = read(self)
        monkeypatch.undo()
        give(folder, "city", ["river"], seed=3)
        (folder / "land.txt").unlink()
        others.append(reprocess(options))
        return found

    monkeypatch.setattr(VocabularyFolder, "read", read_slowly)
    slow = reprocess(options)
    (quick,) = others
    assert quick.updated.keys() == {"city"}
    assert (slow.overtaken, slow.updated.keys(), slow.exit_code) == (["city"], {"land"}, 0)
    assert slow.new_images + quick.new_images == 10
    assert current(options, "city")["versions"] == [quick.updated["city"]]
    versions = [Storage(str(path.parent)) for path in Path(options.labels).glob("*/*/run.json")]
    classes = {version.uri[-12:]: read_names(version).class_names for version in versions}
    assert sorted(classes.values()) == [("field", "hill"), ("river",), ("road", "house")]
    assert classes[quick.updated["city"]] == ("river",)
    assert [verify(version).problems for version in versions] == [[], [], []]
    no_ray()
    done = reprocess(options)
    assert (done.unchanged, done.gone) == (["city"], ["land"])


@pytest.mark.slow
@pytest.mark.usefixtures("one_cluster")
def test_killed_before_a_version_is_current_and_while_an_old_one_is_deleted(options, folder, monkeypatch, no_ray):
    options = dataclasses.replace(options, keep_versions=1)
    give(folder, "city", ["road", "house"], seed=1)
    write, delete = Storage.write, Storage.delete

    def killed_at_current(self, key, data):
        if key == "current.json":
            raise KeyboardInterrupt
        write(self, key, data)

    monkeypatch.setattr(Storage, "write", killed_at_current)
    with pytest.raises(KeyboardInterrupt):
        reprocess(options)
    monkeypatch.undo()
    assert not Path(options.labels, "city", "current.json").exists()
    no_ray()
    (old,) = reprocess(options).updated.values()
    monkeypatch.undo()
    assert current(options, "city")["version"] == old

    give(folder, "city", ["river", "house"], seed=1)
    commit = Path(options.labels, "city", old, "commits", "000001.json")

    def killed_after_a_commit(self, key):
        delete(self, key)
        if self.uri.endswith(old) and not commit.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(Storage, "delete", killed_after_a_commit)
    with pytest.raises(KeyboardInterrupt):
        reprocess(options)
    monkeypatch.undo()
    left = status(Storage(str(commit.parents[1])))
    assert not left.finished
    assert left.totals.committed < left.totals.shards
    new = current(options, "city")
    assert new["versions"] == [old, new["version"]]
    no_ray()
    done = reprocess(options)
    assert (done.deleted, done.unchanged) == ([f"city/{old}"], ["city"])
    assert current(options, "city") == {**new, "versions": [new["version"]]}
    assert {path.name for path in Path(options.labels, "city").iterdir()} == {new["version"], "current.json"}


@pytest.mark.slow
def test_over_s3_as_a_scheduler_starts_it(corpus, folder, s3, options, no_ray):
    give(folder, "city", ["road", "house"], seed=1)
    give(folder, "wrong", ["cat", "cat"])
    bucket = Storage(s3.uri("reprocess"))
    for place, name in ((corpus, "photos"), (folder, "vocabularies")):
        for path in (path for path in place.rglob("*") if path.is_file()):
            bucket.write(f"{name}/{path.relative_to(place)}", path.read_bytes())
    places = {"input": "photos", "vocabularies": "vocabularies", "output": "labels"}
    words = [word for name, key in places.items() for word in (f"--{name}", f"s3://reprocess/{key}/")]
    words += [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, str(ROOT / "jobs" / "reprocess.py"), *words]
    job = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert job.returncode == 1, job.stderr
    assert job.stdout.splitlines()[-1] == "reprocess: 10 new images, 1 vocabulary updated, 0 unchanged, 1 failed"
    assert 'wrong.txt: line 2: "cat" is also the name of class 0' in job.stderr
    assert "Traceback" not in job.stderr
    pointer = json.loads(bucket.read("labels/labels/city/current.json"))
    version = Storage(f"{bucket.uri}/labels/labels/city/{pointer['version']}")
    assert verify(version).problems == []
    assert (verify(version).images, pointer["images"]) == (10, 10)

    bucket.delete("vocabularies/wrong.txt")
    before = files("s3://reprocess/labels")
    no_ray()
    remote = dataclasses.replace(options, **{name: f"s3://reprocess/{key}/" for name, key in places.items()})
    done = reprocess(remote)
    assert done.last_line() == "reprocess: 0 new images, 0 vocabularies updated, 1 unchanged, 0 failed"
    assert done.exit_code == 0
    assert files("s3://reprocess/labels") == before


def test_what_cannot_start_says_what_to_do(options, folder, monkeypatch, capsys):
    words = ["reprocess.py", "--input", options.input, "--vocabularies", str(folder), "--output", options.output]
    monkeypatch.setattr(sys, "argv", words)
    (folder / "notes.md").write_text("none yet")
    assert run_job("reprocess") == 2
    assert "has no vocabulary among 1 files. Put a .txt, .json or .yaml file there" in capsys.readouterr().err
    give(folder, "city", ["road"])
    for change, message in (
        ({"vocabularies": str(folder / "nowhere")}, "nowhere is not a folder; make it"),
        ({"output": str(Path(options.input, "labels"))}, "lies in --input"),
        ({"output": str(folder)}, "lies in --vocabularies"),
        ({"input": str(folder)}, "no images found"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            reprocess(dataclasses.replace(options, **change))
    for change, message in (({"keep_versions": 0}, "--keep-versions"), ({"codec": "zip"}, "--codec")):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(options, **change)
    assert not Path(options.output).exists()
