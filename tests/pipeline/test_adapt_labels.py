"""`adapt --labels`: masks that people corrected come back."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from gaussians import accuracy, draw, vocabulary, write_output
from labelling import files
from PIL import Image

from proxyclip.commands.adapting import adapt as adapt_command
from proxyclip.dataset.features.record import features_of
from proxyclip.dataset.layout import commit_key
from proxyclip.pipeline.adapt.opening import open_adaptation
from proxyclip.pipeline.adapt.options import AdaptOptions
from proxyclip.pipeline.adapt.run import adapt
from proxyclip.pipeline.heads import load_head
from proxyclip.storage.store import Storage

IMAGES, LABELLED = 60, 14


@pytest.fixture(scope="module")
def words():
    """Text embeddings that confuse two classes."""
    plain = vocabulary()
    return plain.with_embeddings(plain.embeddings[[0, 1, 2, 3, 6, 7, 4, 5, 8, 9, 10, 11]])


@pytest.fixture
def options(tmp_path, words):
    """An output with features, and labels of its first images."""
    output, labels = str(tmp_path / "labels"), tmp_path / "corrected"
    write_output(Storage(output), draw(IMAGES), words)
    labels.mkdir()
    for image in draw(LABELLED):
        write(labels, image.uri, image.label)
    return AdaptOptions(output, str(tmp_path / "heads" / "head.safetensors"), labels=str(labels))


def write(folder, uri, label):
    Image.fromarray(label.astype(np.uint8)).save(Path(folder) / f"{Path(uri).stem}.png")


def head_of(options):
    assert adapt(options).exit_code == 0
    return Path(options.output).read_bytes()


def test_labels_of_some_images_correct_the_others(options, words, capsys):
    others = draw(IMAGES)[LABELLED:]
    without = dataclasses.replace(options, labels=None, output=f"{options.output}.without")
    adapt(without)
    assert accuracy(others, words, load_head(without.output)) < 0.75
    assert adapt_command(options) == 0
    assert f"The labels of {LABELLED} images count as certain." in capsys.readouterr().out
    head = load_head(options.output)
    assert accuracy(others, words, head) > 0.95
    assert head.provenance["labelled_images"] == LABELLED
    assert head.provenance["images"] == IMAGES


def test_ignored_pixels_have_no_weight(options):
    expected = head_of(options)
    for image in draw(IMAGES)[LABELLED:]:
        write(options.labels, image.uri, np.full((64, 64), 255))
    write(options.labels, draw(1)[0].uri, np.full((64, 64), 255))
    assert head_of(options) != expected
    assert load_head(options.output).provenance["labelled_images"] == LABELLED - 1


def test_other_labels_start_anew_and_the_first_pass_over_the_corpus_stays(options):
    before = head_of(options)
    first = files(f"{options.output}.statistics")
    right = (Path(options.labels) / "0000.png").read_bytes()
    write(options.labels, "0000.jpg", np.full((64, 64), 5))
    assert head_of(options) != before
    now = files(f"{options.output}.statistics")
    assert now.items() >= {key: data for key, data in first.items() if key.startswith("round1/")}.items()
    assert len({key.split("/")[0] for key in now if "-marked-" in key}) == 2
    (Path(options.labels) / "0000.png").write_bytes(right)
    assert head_of(options) == before


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(options, tmp_path):
    undisturbed = head_of(options)
    again = dataclasses.replace(options, output=str(tmp_path / "again.safetensors"))
    features = features_of(Storage(options.source))
    commit = features.read(commit_key(1))
    features.delete(commit_key(1))
    assert "--add-features" in adapt(again).errors[1]
    features.write(commit_key(1), commit)
    assert head_of(again) == undisturbed


@pytest.mark.slow
def test_workers_on_a_cluster_give_the_same_bytes(options, tmp_path, monkeypatch):
    here = [*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, here)))
    there = dataclasses.replace(options, output=str(tmp_path / "there.safetensors"), address="local", concurrency=2)
    assert head_of(there) == head_of(options)


def test_only_shards_with_labels_are_marked(options):
    head_of(options)
    keys = [key for key in files(f"{options.output}.statistics") if "round1-marked" in key and ".receipt" in key]
    assert len(keys) == -(-LABELLED // 4)  # four images a shard


def test_labels_that_do_not_fit_are_refused(options, tmp_path):
    with pytest.raises(ValueError, match="--map has no meaning without --labels"):
        dataclasses.replace(options, labels=None, map="map.txt")
    with pytest.raises(ValueError, match="leave --reduce-zero-label out"):
        dataclasses.replace(options, map="map.txt", reduce_zero_label=True)
    empty, strange = tmp_path / "empty", tmp_path / "strange"
    for folder in (empty, strange):
        folder.mkdir()
    write(strange, "nobody.jpg", np.zeros((64, 64)))
    with pytest.raises(FileNotFoundError, match=r"no file there ends in '\.png'"):
        open_adaptation(dataclasses.replace(options, labels=str(empty)))
    with pytest.raises(ValueError, match="has the name of an image"):
        open_adaptation(dataclasses.replace(options, labels=str(strange)))
    write(options.labels, "0000.jpg", np.zeros((32, 64)))
    write(options.labels, "0005.jpg", np.full((64, 64), 77))
    summary = adapt(options)
    assert summary.exit_code == 1
    assert "0000.jpg: its label has 64 x 32 pixels" in summary.errors[0]
    assert "have values without a class: 77" in summary.errors[1]
    assert not Path(options.output).exists()
