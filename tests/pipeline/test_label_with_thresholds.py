"""Thresholds of `proxyclip calibrate`, given to label and relabel."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from labelling import data_files, draw, labels, small_options
from PIL import Image

from proxyclip.dataset.masks import confidence_from_png, mask_from_png
from proxyclip.dataset.shards import read_masks
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.evaluation.calibration.calibrate import calibrate
from proxyclip.evaluation.calibration.options import CalibrateOptions
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.relabel.run import relabel
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.thresholds import Thresholds

pytestmark = pytest.mark.usefixtures("one_cluster")


@pytest.fixture(scope="module")
def labelled(one_cluster, tmp_path_factory):
    """The options of a finished run with confidence for every pixel, and with features."""
    images = tmp_path_factory.mktemp("labelled") / "images"
    draw(images, 10)
    options = small_options(images, shard_size=3, keep_features=True, codec="exact", confidence_stride=1)
    assert label(options).exit_code == 0
    return options


def truth_of(options, folder):
    """Labels in which a pixel is what the mask says where its confidence is above the image's median."""
    for row in read_masks(Storage(options.output)):
        mask, confidence = mask_from_png(row.mask), confidence_from_png(row.confidence)
        path = (folder / row.uri).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(confidence > np.median(confidence), mask, (mask + 1) % 5).astype(np.uint8)).save(path)
    return str(folder)


@pytest.fixture(scope="module")
def thresholds(labelled):
    """The file that calibrating wrote."""
    truth = truth_of(labelled, Path(labelled.input).with_name("truth"))
    calibrate(CalibrateOptions(labelled.output, truth, min_images=3, certainty=0.6))
    return f"{labelled.output}/calibration/thresholds.json"


def values_in(file, options):
    return Thresholds.from_json(Path(file).read_bytes(), Vocabulary.load(options.vocabulary), file)


@pytest.mark.slow
def test_label_and_relabel_drop_what_the_thresholds_drop_of_confidences_per_pixel(labelled, thresholds, tmp_path):
    with_thresholds = dataclasses.replace(labelled, output=str(tmp_path / "sure"), thresholds=thresholds)
    assert label(with_thresholds).exit_code == 0
    again = RelabelOptions(
        labelled.output, str(tmp_path / "again"), (labelled.vocabulary,), thresholds=(thresholds,), confidence_stride=1
    )
    assert [summary.exit_code for summary in relabel(again).values()] == [0]
    values = values_in(thresholds, labelled)
    limits = np.array(values.values, np.float32)
    run = open_run(labelled)
    segmenter = Segmenter.from_config(run.config_in("float32"))
    stored = {row.uri: row for row in read_masks(Storage(labelled.output))}
    found, relabelled = labels(with_thresholds.output), labels(again.output)
    dropped = []
    for uri, mask in found.items():
        plain = segmenter.predict(Path(labelled.input, uri), run.vocabulary)
        by_hand = np.where(plain.confidence < limits[plain.mask], 255, plain.mask)
        np.testing.assert_array_equal(mask, by_hand)
        of_map = values.apply(mask_from_png(stored[uri].mask), confidence_from_png(stored[uri].confidence))
        np.testing.assert_array_equal(mask, of_map)
        assert (relabelled[uri] == mask).mean() > 0.995
        dropped.append((mask == 255).mean())
    assert 0.05 < np.mean(dropped) < 0.95
    assert len(set(values.values)) > 1
    assert verify(Storage(with_thresholds.output)).problems == []
    assert label(with_thresholds).exit_code == 0  # the run goes on with the same thresholds, and with no others
    with pytest.raises(ValueError, match="--thresholds: this run has nothing, the output was made with"):
        label(dataclasses.replace(with_thresholds, thresholds=None))


@pytest.mark.slow
def test_thresholds_are_part_of_the_recipe_and_absent_from_one_without_them(labelled, thresholds):
    with pytest.raises(ValueError, match=r"--thresholds: this run has .*, the output was made with nothing"):
        label(dataclasses.replace(labelled, thresholds=thresholds))
    recorded = json.loads(Path(labelled.output, "run.json").read_text())
    assert "thresholds" not in recorded["recipe"]["segmenter"]["decode"]
    before = data_files(labelled.output)
    assert label(labelled).exit_code == 0
    assert data_files(labelled.output) == before


def test_thresholds_that_do_not_fit_are_refused_before_work_starts(options, tmp_path):
    here = str(tmp_path / "thresholds.json")
    with pytest.raises(FileNotFoundError, match=r"--thresholds .*thresholds\.json: there is no such file"):
        open_run(dataclasses.replace(options, thresholds=here))
    Path(here).write_text('{"version": 1, "thresholds": {"sky": 0.5}}')
    with pytest.raises(ValueError, match=r"--thresholds .*no class 'grass'"):
        open_run(dataclasses.replace(options, thresholds=here))
    words = Vocabulary.load(options.vocabulary)
    other = {"version": 1, "vocabulary_fingerprint": "another", "thresholds": dict.fromkeys(words.class_names, 0.5)}
    Path(here).write_text(json.dumps(other))
    with pytest.raises(ValueError, match="made with other queries or text embeddings"):
        open_run(dataclasses.replace(options, thresholds=here))
    with pytest.raises(ValueError, match="takes the place of --ignore-below"):
        LabelOptions("in", "out", "voc21", thresholds=here, ignore_below=0.5)
    with pytest.raises(ValueError, match="--add-features makes no masks"):
        LabelOptions("in", "out", "voc21", thresholds=here, add_features=True)
    with pytest.raises(ValueError, match="takes the place of --ignore-below"):
        RelabelOptions("in", "out", ("voc21",), thresholds=(here,), ignore_below=0.5)
    with pytest.raises(ValueError, match=r"2 --vocabulary and 1 --thresholds; give one file of thresholds"):
        RelabelOptions("in", "out", ("voc21", "voc20"), thresholds=(here,))


def test_thresholds_are_read_from_a_bucket(options, s3):
    storage = Storage(s3.uri("bucket/thresholds"))
    names = Vocabulary.load(options.vocabulary).class_names
    storage.write("five.json", json.dumps({"version": 1, "thresholds": dict.fromkeys(names, 0.3)}).encode())
    run = open_run(dataclasses.replace(options, thresholds=f"{storage.uri}/five.json"))
    assert run.config.decode.thresholds == (0.3,) * 5
