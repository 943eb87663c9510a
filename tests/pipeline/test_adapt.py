"""`adapt`: from an output with features to a head, and the head back into labelling."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from gaussians import DIM, NAMES, accuracy, draw, sums, taught, vocabulary, write_output
from labelling import data_files, files, labels

from proxyclip.commands.adapting import adapt as adapt_command
from proxyclip.dataset.features.record import features_of
from proxyclip.dataset.layout import commit_key
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.reading.passes import Ledger, ShardState
from proxyclip.images.listing import ImageRef
from proxyclip.models.adaptation.statistics import Statistics
from proxyclip.pipeline.adapt.opening import open_adaptation
from proxyclip.pipeline.adapt.options import AdaptOptions
from proxyclip.pipeline.adapt.run import adapt, reduce
from proxyclip.pipeline.heads import load_head
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.relabel.run import relabel
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.heads import HeadError


@pytest.fixture(scope="module")
def words():
    return vocabulary()


@pytest.fixture
def output(tmp_path, words):
    """The URI of an output with features, in shards of four images."""
    uri = str(tmp_path / "labels")
    write_output(Storage(uri), draw(40), words)
    return uri


@pytest.fixture
def options(output, tmp_path):
    return AdaptOptions(output, str(tmp_path / "heads" / "head.safetensors"))


def test_the_head_of_an_output_is_that_of_its_images(options, words, capsys):
    assert adapt_command(options) == 0
    assert "Learned 6 of 6 classes from 40 images." in capsys.readouterr().out
    head = load_head(options.output)
    images = draw(40)
    assert accuracy(images, words, head) > 0.98 > accuracy(images, words)
    np.testing.assert_allclose(head.weights, taught(images, words).head.weights, rtol=1e-2, atol=1e-2)
    assert head.provenance["images"] == 40
    assert head.provenance["source"] == options.source


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(options, output, tmp_path):
    adapt(options)
    undisturbed = Storage(options.output.rpartition("/")[0]).read("head.safetensors")
    again = dataclasses.replace(options, output=str(tmp_path / "again.safetensors"))
    features = features_of(Storage(output))
    commit = features.read(commit_key(7))
    features.delete(commit_key(7))
    stopped = adapt(again)
    assert stopped.exit_code == 1
    assert "--add-features" in stopped.errors[7]
    assert not Storage(str(tmp_path)).exists("again.safetensors")
    kept = files(f"{again.output}.statistics")
    features.write(commit_key(7), commit)
    assert adapt(again).exit_code == 0
    assert Storage(str(tmp_path)).read("again.safetensors") == undisturbed
    assert files(f"{again.output}.statistics").items() >= kept.items()


@pytest.mark.slow
def test_workers_on_a_cluster_give_the_same_bytes(options, tmp_path, monkeypatch):
    here = [*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, here)))
    adapt(options)
    there = dataclasses.replace(options, output=str(tmp_path / "there.safetensors"), address="local", concurrency=2)
    adapt(there)
    assert (tmp_path / "there.safetensors").read_bytes() == (tmp_path / "heads" / "head.safetensors").read_bytes()


def test_shards_of_another_size_give_almost_the_same_head(options, words, tmp_path):
    adapt(options)
    other = str(tmp_path / "other")
    write_output(Storage(other), draw(40), words, shard=40)
    adapt(AdaptOptions(other, str(tmp_path / "other.safetensors")))
    one, two = load_head(options.output), load_head(str(tmp_path / "other.safetensors"))
    assert (one.evidence == two.evidence).all()
    np.testing.assert_allclose(one.weights, two.weights, rtol=0.02, atol=0.02)


def test_a_grown_corpus_teaches_again_from_its_new_shards_only(options, output, words):
    adapt(options)
    first = files(f"{options.output}.statistics")
    write_output(Storage(output), draw(52), words)
    summary = adapt(options)
    assert summary.images == 52
    grown = files(f"{options.output}.statistics")
    of_first_round = {key: data for key, data in first.items() if key.startswith("round1/")}
    assert grown.items() >= of_first_round.items()
    heads = {key for key in grown if key.startswith("round1-")}
    assert len(heads) == 1  # what belonged to the earlier head is gone


def test_dead_rows_do_not_count(options, output, words, tmp_path):
    fewer = [image for image in draw(40) if image.uri != "0003.jpg"]
    Manifest(Storage(output)).extend_plan([ImageRef(image.uri, 10, "1") for image in fewer], 4)
    summary = adapt(options)
    assert summary.images == 39


def test_what_cannot_start_says_why(options, output, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        open_adaptation(AdaptOptions(str(tmp_path / "nothing"), options.output))
    with pytest.raises(ValueError, match="inside"):
        open_adaptation(AdaptOptions(output, f"{output}/head.safetensors"))
    with pytest.raises(ValueError, match="give the file"):
        AdaptOptions(output, "heads/")
    with pytest.raises(ValueError, match="--rounds is 3"):
        AdaptOptions(output, options.output, rounds=3)
    Storage(output).delete("features/features.json")
    with pytest.raises(FileNotFoundError, match="--add-features"):
        open_adaptation(options)
    assert not (tmp_path / "heads").exists()


def test_features_of_another_model_are_refused(options, output):
    storage = Storage(output)
    record = json.loads(storage.read("features/features.json"))
    record["encoder"]["weights"] = {"clip": "bb"}
    storage.write("features/features.json", json.dumps(record).encode())
    with pytest.raises(ValueError, match="two models"):
        open_adaptation(options)


def test_a_damaged_receipt_is_named(options):
    adapt(options)
    storage = Storage(f"{options.output}.statistics")
    key = next(entry.key for entry in storage.list("round1") if "000003" in entry.key)
    storage.write(key, b"damaged")
    with pytest.raises(ValueError, match="shard 3: the statistics are damaged"):
        adapt(options)


def test_the_sums_of_many_shards_are_read_a_few_at_a_time(words, monkeypatch):
    """Constant memory: never more receipts at once than are read ahead."""
    data, held, most = sums(draw(2), words).to_bytes(), 0, 0

    class Counting(Ledger):
        def read(self, shard, state):
            nonlocal held, most
            held += 1
            most = max(most, held)
            return data

    from_bytes = Statistics.from_bytes

    def counted(read):
        nonlocal held
        held -= 1
        return from_bytes(read)

    monkeypatch.setattr(Statistics, "from_bytes", counted)
    states = [ShardState(shard, "0" * 12) for shard in range(300)]
    total = reduce(Counting(Storage("memory://statistics")), states, len(NAMES), DIM)
    assert total.images.sum() == 600
    assert most <= 20


@pytest.fixture
def labelled(corpus, one_cluster):
    """A finished run that kept features, with the demo's networks."""
    from labelling import small_options

    options = small_options(corpus, shard_size=3, keep_features=True, codec="exact")
    assert label(options).exit_code == 0
    return options


def test_label_and_relabel_with_a_head_give_the_same_masks(labelled, tmp_path):
    head = str(tmp_path / "head.safetensors")
    summary = adapt(AdaptOptions(labelled.output, head))
    assert summary.exit_code == 0
    assert "few" in " ".join(summary.remarks) or not summary.head.adapted.any()
    again = RelabelOptions(source=labelled.output, output=str(tmp_path / "again"), head=head, concurrency=1)
    (done,) = relabel(again).values()
    assert done.exit_code == 0
    fresh = dataclasses.replace(labelled, output=str(tmp_path / "fresh"), head=head, keep_features=False)
    assert label(fresh).exit_code == 0
    expected, found = labels(fresh.output), labels(again.output)
    assert expected.keys() == found.keys()
    assert np.mean([(expected[uri] == found[uri]).mean() for uri in found]) > 0.999
    record = json.loads(Storage(again.output).read("run.json"))
    assert record["recipe"]["head"] == load_head(head).fingerprint
    before = data_files(again.output)
    (done,) = relabel(again).values()
    assert data_files(again.output) == before
    without = dataclasses.replace(again, head=None, vocabulary=(labelled.vocabulary,))
    with pytest.raises(ValueError, match="--head: this run has nothing"):
        relabel(without)


def test_heads_of_other_vocabularies_and_models_are_refused(labelled, options, tmp_path):
    adapt(options)  # a head for the Gaussians
    with pytest.raises(HeadError, match="another model"):
        relabel(RelabelOptions(source=labelled.output, output=str(tmp_path / "x"), head=options.output))
    with pytest.raises(HeadError, match="other classes"):
        open_run(dataclasses.replace(labelled, output=str(tmp_path / "x"), head=options.output))
    with pytest.raises(HeadError, match="another model"):
        open_run(dataclasses.replace(labelled, output=str(tmp_path / "x"), head=options.output, vocabulary=None))
