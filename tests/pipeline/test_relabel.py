"""Relabelling: from the features of a labelled corpus to the masks of other vocabularies."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from labelling import data_files, draw, embedded, failures_of, labels, small_options
from safetensors.numpy import save_file

from proxyclip.dataset.commits import committed
from proxyclip.dataset.features.record import begin_features, features_of
from proxyclip.dataset.masks import confidence_from_png
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.run_record import begin_run, read_vocabulary
from proxyclip.dataset.upkeep.clean import clean
from proxyclip.dataset.upkeep.status import status
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.gallery.preview import PreviewOptions, preview
from proxyclip.models.decoding.decode import dense_logits
from proxyclip.models.decoding.reduce import reduce_confidence
from proxyclip.pipeline.features import open_features
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.relabel.margins import margins_of
from proxyclip.pipeline.relabel.opening import open_relabelling
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.relabel.run import execute, relabel
from proxyclip.pipeline.relabel.runner import RayRunner
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

pytestmark = pytest.mark.usefixtures("one_cluster")

TWO = ["red thing; tomato", "all else; grass; sky; water"]


def labelled_corpus(folder):
    """The options of a finished run that kept features; one of its images is broken."""
    draw(folder, 10)
    (folder / "image 004.jpg").write_text("no image")
    options = embedded(small_options(folder, shard_size=3, keep_features=True, codec="exact"))
    assert label(options).exit_code == 3
    return options


def relabelling_of(labelled, output):
    """Relabel it with another vocabulary, whose embeddings are given."""
    two = Path(labelled.output).with_name("two.txt")
    two.write_text("\n".join(TWO))
    embeddings = embedded(dataclasses.replace(labelled, vocabulary=str(two))).embeddings
    return RelabelOptions(labelled.output, str(output), (str(two),), (embeddings,), concurrency=1)


@pytest.fixture
def labelled(tmp_path):
    return labelled_corpus(tmp_path / "images")


@pytest.fixture
def relabelling(labelled, tmp_path):
    return relabelling_of(labelled, tmp_path / "again")


@pytest.fixture(scope="module")
def kept(one_cluster, tmp_path_factory):
    """A labelled corpus that no test changes."""
    return labelled_corpus(tmp_path_factory.mktemp("kept") / "images")


@pytest.fixture(scope="module")
def relabelled(kept):
    """The options of a finished relabelling of it, and what that said."""
    options = relabelling_of(kept, Path(kept.output).with_name("again"))
    (summary,) = relabel(options).values()
    return options, summary


def assert_as_labelled(output, afresh, agreement=0.9995):
    """The masks are those of a labelling run, but for a few pixels; all else is the same."""
    expected, found = labels(afresh), labels(output)
    assert found.keys() == expected.keys()
    assert np.mean([(found[uri] == mask).mean() for uri, mask in expected.items()]) >= agreement
    assert failures_of(output) == failures_of(afresh)
    report = verify(Storage(output))
    assert (report.problems, report.unfinished) == ([], [])


class Interrupted(RayRunner):
    """Is interrupted after the first shard."""

    def relabel(self, pending):
        yield from super().relabel(dict(list(pending.items())[:1]))
        raise KeyboardInterrupt


def test_masks_are_those_of_labelling_afresh_and_an_interrupted_run_goes_on(kept, relabelled, tmp_path):
    undisturbed, summary = relabelled
    places = {"vocabulary": undisturbed.vocabulary[0], "output": str(tmp_path / "afresh")}
    afresh = embedded(dataclasses.replace(kept, **places, keep_features=False))
    assert label(afresh).exit_code == 3
    assert (summary.images, summary.labelled, summary.failed, summary.exit_code) == (11, 10, 1, 3)
    assert_as_labelled(undisturbed.output, afresh.output)
    relabelling = dataclasses.replace(undisturbed, output=str(tmp_path / "again"))
    with pytest.raises(KeyboardInterrupt):
        execute(open_relabelling(relabelling), Interrupted)
    assert len(committed(Storage(relabelling.output))) == 1
    (summary,) = relabel(relabelling).values()
    assert summary.exit_code == 3
    assert data_files(relabelling.output) == data_files(undisturbed.output)
    # The rest of the house works on it.
    assert status(Storage(relabelling.output)).finished
    assert clean(Storage(relabelling.output), older_than_h=0).orphans == ()
    assert len(preview(PreviewOptions(relabelling.output, limit=2, sheet=2))) == 3
    record = json.loads(Path(relabelling.output, "run.json").read_text())
    assert record["source"] == kept.output
    # A finished one starts no Ray and writes nothing.
    before = {path: path.stat().st_mtime_ns for path in Path(relabelling.output).rglob("*")}
    execute(open_relabelling(relabelling), make_runner=pytest.fail)
    assert {path: path.stat().st_mtime_ns for path in Path(relabelling.output).rglob("*")} == before


def test_margins_follow_from_kept_features_and_belong_to_the_stored_confidence(kept, relabelled):
    """By the definition: softmax over all words, the largest of each class, the first class minus the second."""
    features = open_features(kept.output)
    for output in (kept.output, relabelled[0].output):
        vocabulary, margin = read_vocabulary(Storage(output)), margins_of(output)
        owner = torch.tensor(vocabulary.query_class)
        for image in Labels.open(output).images():
            cosines = dense_logits(features[image.uri], torch.tensor(vocabulary.embeddings))
            share = torch.softmax(40 * cosines, dim=0)
            of_class = torch.stack([share[owner == each].amax(dim=0) for each in range(vocabulary.num_classes)])
            first, second = of_class.sort(dim=0, descending=True).values[:2]
            confidence, expected = (reduce_confidence(each, 4).numpy().astype(int) for each in (first, first - second))
            assert np.abs(confidence - confidence_from_png(image.confidence)).max() <= 1
            assert np.abs(expected - margin(image.uri)).max() <= 1
            assert expected.std() > 1
        assert margin("image 004.jpg") is None  # it could not be read, so it has no features


def test_margins_that_do_not_follow_from_features_are_refused(kept, tmp_path):
    run = open_run(dataclasses.replace(kept, output=str(tmp_path / "refined"), pamr_steps=2))
    begin_run(run.manifest.storage, run.record("float32"), run.vocabulary.to_json())
    with pytest.raises(FileNotFoundError, match="--add-features"):
        margins_of(run.options.output)
    begin_features(run.manifest.storage, run.features("float32"))
    with pytest.raises(ValueError, match="leave out --margin"):
        margins_of(run.options.output)


@pytest.mark.slow
def test_several_vocabularies_and_a_corpus_that_changes(labelled, relabelling, tmp_path):
    """Own vocabulary, embeddings from the text tower; then images come, change and go."""
    corpus, vocabularies = Path(labelled.input), (labelled.vocabulary, *relabelling.vocabulary)
    several = dataclasses.replace(relabelling, vocabulary=vocabularies, embeddings=())
    assert [summary.exit_code for summary in relabel(several).values()] == [3, 3]
    own, other = (str(tmp_path / "again" / name) for name in ("five", "two"))
    assert_as_labelled(own, labelled.output)
    draw(corpus, 2, first=20)
    (corpus / "image 002.jpg").unlink()
    (corpus / "image 004.jpg").unlink()
    (corpus / "image 003.jpg").write_bytes((corpus / "image 001.jpg").read_bytes())
    assert label(labelled).exit_code == 0
    assert [summary.exit_code for summary in relabel(several).values()] == [0, 0]
    assert_as_labelled(own, labelled.output)
    assert labels(other).keys() == labels(own).keys()
    assert status(Storage(other)).totals == status(Storage(labelled.output)).totals


@pytest.mark.slow
def test_pamr_reads_the_images(labelled, relabelling, tmp_path):
    corpus, pamr = Path(labelled.input), {"pamr_steps": 2}
    afresh = dataclasses.replace(labelled, output=str(tmp_path / "afresh"), keep_features=False, **pamr)
    assert label(afresh).exit_code == 3
    own = {"vocabulary": (labelled.vocabulary,), "embeddings": (labelled.embeddings,)}
    own = dataclasses.replace(relabelling, **own, **pamr)
    gone = next(iter(corpus.rglob("*.jpg")))
    gone.unlink()
    relabel(own)
    expected, found = labels(afresh.output), labels(own.output)
    del expected[str(gone.relative_to(corpus))]
    assert np.mean([(found[uri] == mask).mean() for uri, mask in expected.items()]) >= 0.9995
    assert found.keys() == expected.keys()
    assert failures_of(own.output)[str(gone.relative_to(corpus))]["status"] == "fetch_failed"


@pytest.mark.slow
def test_features_can_be_added_later_and_masks_stay(options, tmp_path):
    assert label(options).exit_code == 0
    masks = data_files(options.output)
    relabelling = relabelling_of(options, tmp_path / "again")
    with pytest.raises(FileNotFoundError, match="--add-features"):
        open_relabelling(relabelling)
    adding = dataclasses.replace(options, add_features=True)
    assert label(adding).exit_code == 0
    added = data_files(options.output)
    assert {name: data for name, data in added.items() if not name.startswith("features/")} == masks
    kept = dataclasses.replace(options, output=str(tmp_path / "kept"), keep_features=True)
    assert label(kept).exit_code == 0
    assert data_files(kept.output) == added
    assert [summary.exit_code for summary in relabel(relabelling).values()] == [0]
    # A shard loses its features: it is named, the others are done, and --add-features mends it.
    lost = next(iter(Path(options.output).glob("features/features/000001-*")))
    lost.write_bytes(lost.read_bytes()[:-1])
    broken = dataclasses.replace(relabelling, output=str(tmp_path / "broken"))
    (summary,) = relabel(broken).values()
    assert (summary.exit_code, summary.committed, list(summary.shard_errors)) == (1, 3, [1])
    assert lost.name in summary.shard_errors[1]
    assert "--add-features" in summary.shard_errors[1]
    features_of(Storage(options.output)).delete("commits/000001.json")
    (summary,) = relabel(broken).values()
    assert "1 shards" in summary.stopped
    assert "--add-features" in summary.stopped
    assert label(adding).exit_code == 0
    (summary,) = relabel(broken).values()
    assert summary.exit_code == 0
    assert data_files(broken.output) == data_files(relabelling.output)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "nowhere"}, "nowhere"),
        ({"vocabulary": ("voc2",)}, "voc21"),
        ({"vocabulary": ("voc21", "voc21")}, "Two vocabularies are named 'voc21'"),
        ({"vocabulary": ("voc21",), "embeddings": "narrow"}, "width 64"),
        ({"background_threshold": 0.5}, "no background"),
        ({"output": "source"}, "is the source itself"),
        ({"max_failures": "many"}, "max-failures"),
        ({"logit_scale": -1.0}, "logit_scale"),
    ],
    ids=str,
)
def test_a_relabelling_that_cannot_start_says_why(options, change, message, tmp_path):
    run = open_run(dataclasses.replace(options, keep_features=True))
    begin_run(run.manifest.storage, run.record("float32"), run.vocabulary.to_json())
    begin_features(run.manifest.storage, run.features("float32"))
    if change.get("embeddings"):
        path = tmp_path / "narrow.safetensors"
        queries = len(Vocabulary.load("voc21").queries)
        save_file({"embeddings": np.eye(queries, 12, dtype=np.float32) + 0.1}, path)
        change = {**change, "embeddings": (str(path),)}
    if change.get("output"):
        change = {"output": options.output}
    relabelling = relabelling_of(options, tmp_path / "again")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_relabelling(dataclasses.replace(relabelling, **{"embeddings": (), **change}))
    assert not Path(tmp_path / "again").exists()


def test_outputs_are_not_mixed_up(kept, relabelled, tmp_path):
    """Another vocabulary, another codec, another kind of run on the same output, a source that was relabelled."""
    relabelling, _ = relabelled
    own = {"vocabulary": (kept.vocabulary,), "embeddings": (kept.embeddings,)}
    with pytest.raises(ValueError, match="vocabulary"):
        open_relabelling(dataclasses.replace(relabelling, **own))
    with pytest.raises(FileNotFoundError, match="itself relabelled"):
        open_relabelling(dataclasses.replace(relabelling, source=relabelling.output, output=str(tmp_path / "third")))
    with pytest.raises(ValueError, match="--codec exact"):
        label(dataclasses.replace(kept, codec="compact"))
    places = {"output": relabelling.output, "vocabulary": relabelling.vocabulary[0]}
    with pytest.raises(ValueError, match="features"):
        label(embedded(dataclasses.replace(kept, **places, keep_features=False)))
