"""`label --collect-statistics`, and the head that `adapt` learns from what it summed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from gaussians import draw, sums, vocabulary, write_output
from labelling import data_files, files, small_options
from labelling import draw as draw_images

from proxyclip.commands.adapting import adapt as adapt_command
from proxyclip.dataset.features.collected import read_collected, write_collected
from proxyclip.dataset.layout import COLLECTED, COLLECTED_FOLDER
from proxyclip.dataset.run_record import RecipeMismatch
from proxyclip.models.adaptation.statistics import Statistics
from proxyclip.pipeline.adapt.options import AdaptOptions
from proxyclip.pipeline.adapt.run import adapt
from proxyclip.pipeline.heads import load_head
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage


@pytest.fixture
def collecting(corpus):
    """Ten images in shards of three."""
    return small_options(corpus, shard_size=3, collect_statistics=True)


def collected(output: str) -> dict[str, bytes]:
    return {key: data for key, data in files(output).items() if key.startswith(COLLECTED_FOLDER)}


@pytest.mark.slow
@pytest.mark.usefixtures("one_cluster")
def test_masks_are_the_same_and_the_head_is_that_of_exact_features(collecting, tmp_path):
    assert label(collecting).exit_code == 0
    other = dataclasses.replace(
        collecting, output=str(tmp_path / "kept"), collect_statistics=False, keep_features=True, codec="exact"
    )
    assert label(other).exit_code == 0
    made, kept = data_files(collecting.output), data_files(other.output)
    assert made.keys() - collected(collecting.output).keys() == {key for key in kept if not key.startswith("features")}
    assert all(data == kept[key] for key, data in made.items() if key in kept)
    summary = adapt(AdaptOptions(collecting.output, str(tmp_path / "head.safetensors")))
    assert summary.exit_code == 0
    assert summary.images == 10
    adapt(AdaptOptions(other.output, str(tmp_path / "kept.safetensors"), rounds=1))
    found, expected = (load_head(str(tmp_path / name)) for name in ("head.safetensors", "kept.safetensors"))
    np.testing.assert_allclose(found.weights, expected.weights, rtol=0.02, atol=0.02)  # float16 was stored
    np.testing.assert_allclose(found.evidence, expected.evidence, rtol=0.05, atol=1e-3)
    assert found.encoder == expected.encoder
    again = dataclasses.replace(
        collecting, output=str(tmp_path / "again"), collect_statistics=False, head=str(tmp_path / "head.safetensors")
    )
    assert label(again).exit_code == 0  # the head labels images


@pytest.mark.slow
@pytest.mark.usefixtures("one_cluster")
def test_the_same_bytes_for_any_number_of_actors_and_after_a_stop(collecting, corpus, tmp_path):
    assert label(collecting).exit_code == 0
    other = dataclasses.replace(collecting, output=str(tmp_path / "two"), concurrency=2)
    assert label(other).exit_code == 0
    assert collected(collecting.output) == collected(other.output)
    assert len(collected(other.output)) == 5
    before = files(collecting.output)
    assert label(collecting).exit_code == 0
    assert files(collecting.output) == before
    # A shard that was labelled without them has none, and is counted.
    draw_images(corpus, 2, first=20)
    assert label(dataclasses.replace(collecting, collect_statistics=False)).exit_code == 0
    summary = adapt(AdaptOptions(collecting.output, str(tmp_path / "head.safetensors")))
    assert summary.left == 1
    assert summary.images == 10


@pytest.fixture
def summed(tmp_path):
    """An output of Gaussians, as if a run had collected their statistics, and its vocabulary."""
    words = vocabulary()
    output = str(tmp_path / "labels")
    write_output(Storage(output), draw(40), words)
    storage = Storage(output)
    storage.write(COLLECTED, storage.read("features/features.json"))
    for shard in range(10):
        write_collected(storage, shard, sums(draw(40)[4 * shard : 4 * shard + 4], words).to_bytes())
    storage.delete("features/features.json")
    return output


def test_a_second_round_needs_features_and_is_named(summed, tmp_path, capsys):
    assert adapt_command(AdaptOptions(summed, str(tmp_path / "head.safetensors"))) == 0
    printed = capsys.readouterr().out
    assert "Learned 6 of 6 classes from 40 images." in printed
    assert "no second round" in printed
    assert not (tmp_path / "head.safetensors.statistics").exists()


def test_of_two_writers_one_counts_and_shards_without_a_commit_do_not(summed):
    storage = Storage(summed)
    write_collected(storage, 3, sums(draw(2), vocabulary()).to_bytes())
    write_collected(storage, 99, sums(draw(2), vocabulary()).to_bytes())
    found = list(read_collected(storage))
    assert [shard for shard, _ in found] == list(range(10))
    assert all(Statistics.from_bytes(data).images.sum() in (2, 4) for _, data in found)


def test_a_changed_file_is_named(summed, tmp_path):
    storage = Storage(summed)
    key = next(entry.key for entry in storage.list(COLLECTED_FOLDER) if "000003" in entry.key)
    storage.write(key, storage.read(key)[:-1] + b"x")
    with pytest.raises(ValueError, match=f"{key}: the file was changed"):
        adapt(AdaptOptions(summed, str(tmp_path / "head.safetensors")))
    assert not (tmp_path / "head.safetensors").exists()


def test_labels_of_people_need_features(summed, tmp_path):
    with pytest.raises(ValueError, match="--labels needs features"):
        adapt(AdaptOptions(summed, str(tmp_path / "head.safetensors"), labels=str(tmp_path)))


def test_statistics_of_another_network_are_refused(collecting):
    storage = Storage(collecting.output)
    record = json.loads(open_run(collecting).collected("float32").to_json())
    record["encoder"]["weights"] = {"clip": "bb"}
    storage.write(COLLECTED, json.dumps(record).encode())
    with pytest.raises(RecipeMismatch, match="another network"):
        label(collecting)


@pytest.mark.parametrize("other", [{"keep_features": True}, {"add_features": True}, {"quality": "best"}])
def test_features_hold_more_than_statistics_do(other):
    with pytest.raises(ValueError, match="--collect-statistics takes the place of features"):
        LabelOptions("images", "labels", "voc21", collect_statistics=True, **other)
