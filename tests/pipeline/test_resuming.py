"""Runs that stop and go on, and corpora that change between runs."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelling import data_files, draw, labels
from PIL import Image

from proxyclip.dataset import commits
from proxyclip.dataset.commits import committed
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.demo import CLIP_FOLDER
from proxyclip.images.listing import list_images
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline import opening, runner
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.recipe import segmenter_config
from proxyclip.pipeline.run import execute, label
from proxyclip.pipeline.runner import RayRunner
from proxyclip.pipeline.stages.write import Receipt
from proxyclip.storage.store import Storage, StorageError
from proxyclip.vocabulary.names import Vocabulary

pytestmark = pytest.mark.usefixtures("one_cluster")


@pytest.fixture
def listings(monkeypatch):
    """The commits that were there whenever the input was listed."""
    seen = []

    def listing(input_uri, *, exclude, only):
        seen.append(list(committed(Storage(exclude))))
        return list_images(input_uri, exclude=exclude, only=only)

    monkeypatch.setattr(opening, "list_images", listing)
    return seen


class Interrupted(RayRunner):
    """Is interrupted after the first shard."""

    def label(self, config, pending):
        yield next(super().label(config, pending))
        raise KeyboardInterrupt


class Failing(contextlib.ExitStack):
    """Every shard fails, as over a storage that is down."""

    retries = 0

    def __init__(self, run):
        super().__init__()

    def dtype(self, asked):
        return asked or "float32"

    def label(self, config, pending):
        for shard in range(30):
            yield Receipt(shard, 0, 0, "StorageError: down", 0)


class Idle(Failing):
    """Labels nothing."""

    def label(self, config, pending):
        return iter(())


def test_an_interrupted_run_labels_what_is_planned_before_it_lists_and_ends_in_the_same_bytes(
    options, tmp_path, monkeypatch, listings
):
    monkeypatch.setattr(commits, "SHARDS_PER_SEGMENT", 3)
    undisturbed = dataclasses.replace(options, output=str(tmp_path / "undisturbed"))
    assert label(undisturbed).exit_code == 0
    assert listings == [[]]
    assert sorted(path.name for path in Path(undisturbed.output, "commits").iterdir()) == [
        "000003.json",
        "segment-00000.parquet",
    ]
    monkeypatch.setattr(runner, "SHARDS_PER_WAVE", 3)  # the undisturbed run had one wave
    with pytest.raises(KeyboardInterrupt):
        execute(open_run(options), Interrupted)
    assert 1 <= len(committed(Storage(options.output))) < 4
    listings.clear()
    summary = label(options)
    assert (summary.images, summary.labelled, summary.committed, summary.exit_code) == (10, 10, 4, 0)
    assert listings == [[0, 1, 2, 3]]
    assert data_files(options.output) == data_files(undisturbed.output)


@pytest.mark.slow
def test_a_corpus_that_changes_is_labelled_where_it_changed(options, corpus, listings, caplog):
    label(options)
    before = data_files(options.output)
    draw(corpus, 1, first=10)
    (corpus / "image 002.jpg").unlink()
    Image.new("RGB", (64, 60), "red").save(corpus / "image 003.jpg")
    summary = label(options)
    assert (summary.images, summary.labelled, summary.shards, summary.exit_code) == (10, 10, 5, 0)
    assert "1 images changed" in caplog.text
    assert "1 images are gone" in caplog.text
    after = data_files(options.output)
    assert {name for name in before if after.get(name) != before[name]} == {"class_stats.parquet"}
    vocabulary = Vocabulary.load(options.vocabulary)
    segmenter = Segmenter.from_config(segmenter_config(options, vocabulary))
    masks = labels(options.output)
    assert masks.keys() == {str(path.relative_to(corpus)) for path in corpus.rglob("*.jpg")}
    for uri, mask in masks.items():
        np.testing.assert_array_equal(mask, segmenter.predict(corpus / uri, vocabulary).mask)
    for row in pq.read_table(Path(options.output) / "class_stats.parquet").to_pylist():
        assert row["pixels"] == sum(int((mask == row["class"]).sum()) for mask in masks.values())
        assert row["images"] == sum(bool((mask == row["class"]).any()) for mask in masks.values())
    report = verify(Storage(options.output))
    assert (report.problems, report.unfinished, report.shards) == ([], [], 5)
    listings.clear()
    written = {path: path.stat().st_mtime_ns for path in Path(options.output).rglob("*")}
    assert label(options).exit_code == 0
    assert listings == [[0, 1, 2, 3, 4]]
    assert {path: path.stat().st_mtime_ns for path in Path(options.output).rglob("*")} == written


def test_an_input_that_is_gone_stops_a_resumed_run_before_its_images_fail(options, corpus):
    assert execute(open_run(options), Idle).exit_code == 1
    before = data_files(options.output)
    corpus.rename(corpus.with_name("unmounted"))
    for _ in range(2):
        with pytest.raises((FileNotFoundError, ValueError), match="images"):
            label(options)
        corpus.mkdir(exist_ok=True)  # a mount point without its disk
    assert data_files(options.output) == before


def test_shards_that_all_fail_stop_the_run(options):
    """It is not the shards then, and each would cost all the retries of a storage that is down."""
    summary = execute(open_run(options), Failing)
    assert summary.stopped == "20 shards in a row failed; the last error: StorageError: down"
    assert len(summary.shard_errors) == 20
    assert summary.exit_code == 1


def test_a_storage_that_is_down_at_the_end_does_not_hide_what_failed(options, monkeypatch):
    def down(self):
        raise StorageError("storage: s3://bucket: down")

    monkeypatch.setattr(Manifest, "compact", down)
    summary = execute(open_run(options), Failing)
    assert summary.stopped == "the output can no longer be read: storage: s3://bucket: down"
    assert len(summary.shard_errors) == 20
    assert summary.exit_code == 1


def test_weights_that_vanish_before_the_vocabulary_is_embedded_end_the_run(options, tmp_path):
    """Every shard fails by it then, and the fault is not theirs."""
    clip = shutil.copytree(CLIP_FOLDER, tmp_path / "clip")
    run = open_run(dataclasses.replace(options, clip=f"local-dir:{clip}", embeddings=None))
    (clip / "open_clip_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="contains no weights"):
        execute(run)
    assert not list(Path(options.output).glob("failures/*"))
