"""--quality best: two passes in one command, one head for all masks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from labelling import data_files, draw, labels

from proxyclip.dataset.run_record import RecipeMismatch, read_head
from proxyclip.pipeline.adapt import run as adapting
from proxyclip.pipeline.best.run import Passes
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.relabel import run as relabelling
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage


@pytest.fixture
def best(options):
    return dataclasses.replace(options, quality="best", max_failures="100%")


@pytest.mark.slow
@pytest.mark.usefixtures("one_cluster")
def test_the_output_is_what_the_three_commands_make_and_goes_on_with_its_head(best, corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(relabelling, "execute", _killed)
        with pytest.raises(KeyboardInterrupt):
            label(best)  # ends in front of the last step
    assert label(best).exit_code == 0
    made = data_files(best.output)
    by_hand = RelabelOptions(
        f"{best.output}.first",
        str(tmp_path / "by hand"),
        (str(best.vocabulary),),
        head=f"{best.output}.head.safetensors",
        guided_radius=2,
        max_failures="100%",
    )
    relabelling.relabel(by_hand)
    assert labels(best.output).keys() == labels(f"{best.output}.first").keys()
    for uri, mask in labels(by_hand.output).items():
        assert (labels(best.output)[uri] == mask).all()
    assert label(best).exit_code == 0
    assert data_files(best.output) == made
    # More images: the head stays, since masks of two heads in one output could not be told apart.
    head = read_head(Storage(best.output)).fingerprint
    draw(corpus, 4, first=40)
    monkeypatch.setattr(adapting, "execute", _killed)
    assert label(best).labelled == 14
    assert read_head(Storage(best.output)).fingerprint == head
    assert {key: data for key, data in data_files(best.output).items() if key in made and key.startswith("masks")} == {
        key: data for key, data in made.items() if key.startswith("masks")
    }
    with pytest.raises(RecipeMismatch, match="--presence"):
        label(dataclasses.replace(best, presence=0.5))


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("one_cluster")
def test_an_output_of_another_quality_is_refused_before_work_starts(options):
    label(options)
    with pytest.raises(ValueError, match="--quality best did not make it"):
        label(dataclasses.replace(options, quality="best"))
    assert not Path(f"{options.output}.first").exists()


@pytest.mark.usefixtures("one_cluster")
def test_images_that_cannot_be_read_teach_nothing(best, corpus):
    for path in corpus.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    summary = label(best)
    assert (summary.exit_code, summary.failed) == (1, 10)
    assert "nothing to learn from" in str(summary.stopped)


@pytest.mark.parametrize(
    ("pamr_steps", "guided_radius", "expected"), [(None, 0, (0, 2)), (5, 0, (5, 0)), (0, 1, (0, 1))]
)
def test_borders_are_refined_in_one_way(best, pamr_steps, guided_radius, expected):
    """The preset has PAMR of its own."""
    own = dataclasses.replace(best, preset="naclip-b16", pamr_steps=pamr_steps, guided_radius=guided_radius)
    passes = Passes.of(own)
    assert (passes.second.pamr_steps, passes.second.guided_radius) == expected
    assert passes.first.pamr_steps == 0


def test_what_does_not_go_with_it_is_refused(best, corpus):
    with pytest.raises(ValueError, match="leave out --head"):
        dataclasses.replace(best, embeddings=None, head="head.safetensors")
    with pytest.raises(ValueError, match="has none"):
        label(dataclasses.replace(best, preset=LabelOptions.preset, method="sam3"))
    with pytest.raises(ValueError, match="inside --input"):
        label(dataclasses.replace(best, output=str(corpus / "labels")))
