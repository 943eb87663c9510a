"""Refined masks through the jobs: regions of the user, a guided filter, a prior, active classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from labelling import failures_of, labels
from PIL import Image

from proxyclip.dataset.run_record import RecipeMismatch
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.relabel.opening import open_relabelling
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.relabel.run import relabel
from proxyclip.pipeline.run import label

SETTINGS = {"guided_radius": 2, "presence": 0.5, "active": 3}


@pytest.fixture
def regions(corpus, tmp_path):
    """Blocks of 25 pixels in the upper half of each image; the rest is one region. An image has none."""
    folder = tmp_path / "regions"
    for path in sorted(corpus.rglob("*.jpg"))[1:]:
        width, height = Image.open(path).size
        blocks = np.add.outer(100 * (np.arange(height) // 25), np.arange(width) // 25)
        blocks[height // 2 :] = 9999
        target = folder / path.relative_to(corpus).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blocks.astype(np.uint16)).save(target)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("one_cluster")
def test_relabelling_makes_the_same_refined_masks(options, corpus, regions, tmp_path):
    labelled = dataclasses.replace(options, keep_features=True, codec="exact", regions=str(regions), **SETTINGS)
    assert label(labelled).exit_code == 3
    (without,) = failures_of(labelled.output).values()
    assert "there are no regions" in without["reason"]
    again = RelabelOptions(
        labelled.output,
        str(tmp_path / "again"),
        (labelled.vocabulary,),
        concurrency=1,
        regions=str(regions),
        **SETTINGS,
    )
    relabel(again)
    expected, found = labels(labelled.output), labels(again.output)
    assert found.keys() == expected.keys()
    assert np.mean([(found[uri] == mask).mean() for uri, mask in expected.items()]) >= 0.999
    for uri, mask in found.items():
        blocks = np.asarray(Image.open((regions / uri).with_suffix(".png")))
        for block in np.unique(blocks):
            assert len(np.unique(mask[blocks == block])) == 1
    with pytest.raises(RecipeMismatch, match=r"--regions: this run has nothing, the output was made with '.*regions'"):
        open_relabelling(dataclasses.replace(again, regions=None))
    with pytest.raises(RecipeMismatch, match=r"--presence: this run has 1\.0, the output was made with 0\.5"):
        open_run(dataclasses.replace(labelled, presence=1.0))


def test_regions_are_checked_before_work_starts(options, corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--regions .*nowhere is empty or does not exist"):
        open_run(dataclasses.replace(options, regions=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="lies in the input"):
        open_run(dataclasses.replace(options, regions=str(Path(options.input) / "regions")))
    with pytest.raises(ValueError, match="makes no masks, so leave out --regions"):
        dataclasses.replace(options, vocabulary=None, add_features=True, regions=str(tmp_path))
