"""Evaluations of an output: resumed, renewed, refused; what cannot be scored is listed."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelling import files
from outputs import begin, images, label_pending, run
from PIL import Image

from proxyclip.dataset.masks import mask_from_png
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.passes import PassMismatch
from proxyclip.dataset.upkeep.clean import clean
from proxyclip.dataset.upkeep.status import status
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.pipeline.evaluate.options import EvaluateOptions
from proxyclip.pipeline.evaluate.run import evaluate
from proxyclip.storage.store import Storage

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Place:
    """An output of three classes with labels for its images, on a disk or in a store."""

    output: str
    labels: str

    def evaluate(self, **changes):
        return evaluate(EvaluateOptions(self.output, self.labels, **changes))

    def label(self, uri):
        """A label that differs from the mask in every third column, with a border that is ignored."""
        mask = next(mask_from_png(image.mask) for image in Labels.open(self.output).images() if image.uri == uri)
        label = np.where(mask == 255, 0, mask)
        label[:, ::3] = (label[:, ::3] + 1) % 3
        label[0] = 255
        return label.astype(np.uint8)

    def write_label(self, uri, values):
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "PNG")
        Storage(self.labels).write(uri.replace(".jpg", ".png"), buffer.getvalue())

    def write_labels(self):
        for image in Labels.open(self.output).images():
            self.write_label(image.uri, self.label(image.uri))


def made(root, count=20):
    place = Place(f"{root}/out", f"{root}/labels")
    run(Storage(place.output), images(count))
    place.write_labels()
    return place


@pytest.fixture
def place(tmp_path):
    return made(str(tmp_path))


def report_of(place, folder="evaluation"):
    return json.loads(Storage(f"{place.output}/{folder}").read("evaluation.json"))


def test_the_figures_are_those_of_the_confusion_matrix(place):
    evaluated = place.evaluate()
    matrix = ConfusionMatrix(3)
    worst = {}
    for image in Labels.open(place.output).images():
        one = ConfusionMatrix(3)
        one.add(place.label(image.uri), mask_from_png(image.mask))
        matrix.merge(one)
        worst[image.uri] = one.mean_iou
    report = report_of(place)
    assert report == evaluated.report.fields
    assert (report["miou"], report["aacc"], report["macc"]) == (
        matrix.mean_iou,
        matrix.pixel_accuracy,
        matrix.mean_accuracy,
    )
    assert [row["iou"] for row in report["classes"]] == matrix.iou().tolist()
    assert [row["name"] for row in report["classes"]] == ["sky", "tree", "horse"]
    assert report["confusion"] == matrix.counts.tolist()
    assert [row["uri"] for row in report["worst"]] == sorted(worst, key=lambda uri: (worst[uri], uri))
    assert 0 < report["boundary_iou"] < 100
    assert evaluated.exit_code == 3  # images 6 and 13 have no mask
    assert (report["num_images"], report["num_failed"], report["finished"]) == (18, 2, True)


def test_the_tables_hold_what_the_report_says(place):
    report = place.evaluate().report.fields
    folder = Path(place.output) / "evaluation"
    rows = pq.read_table(folder / "images.parquet").to_pylist()
    assert {row["uri"]: row["miou"] for row in rows} == {row["uri"]: row["miou"] for row in report["worst"]}
    classes = pq.read_table(folder / "classes.parquet").to_pylist()
    assert [row["iou"] for row in classes] == [row["iou"] for row in report["classes"]]
    counts = np.zeros((3, 4), int)
    for row in pq.read_table(folder / "confusion.parquet").to_pylist():
        counts[row["true"], 3 if row["predicted"] is None else row["predicted"]] = row["pixels"]
    assert counts.tolist() == report["confusion"]


def test_labels_that_do_not_fit_are_counted_and_listed_and_the_others_scored(place):
    place.evaluate(to=f"{place.output}/before")
    Storage(place.labels).delete("000.png")
    place.write_label("001.jpg", np.zeros((4, 4), np.uint8))
    place.write_label("002.jpg", np.full_like(place.label("002.jpg"), 7))
    Storage(place.labels).write("003.png", b"damaged")
    evaluated = place.evaluate()
    unscored = report_of(place)["unscored"]
    assert evaluated.exit_code == 3
    assert unscored["by_status"] == {"no_label": 1, "not_a_label": 1, "other_size": 1, "unknown_value": 1}
    reasons = {row["uri"]: row["reason"] for row in unscored["first"]}
    assert reasons["000.jpg"] == "there is no label 000.png"
    assert "the label is 4 x 4 pixels" in reasons["001.jpg"]
    assert "pixels have values without a class: 7" in reasons["002.jpg"]
    assert "label 003.png: this is no readable PNG" in reasons["003.jpg"]
    rows = {row["uri"]: row for row in pq.read_table(f"{place.output}/before/images.parquet").to_pylist()}
    for row in pq.read_table(f"{place.output}/evaluation/images.parquet").to_pylist():
        assert rows.pop(row["uri"]) == row
    assert rows.keys() == reasons.keys()


def test_an_evaluation_follows_its_output_and_its_labels(place, tmp_path):
    first = place.evaluate().report
    run(Storage(place.output), [*images(4, etag="2"), *images(20, start=8)])
    place.write_labels()
    grown = place.evaluate().report
    assert grown.fields["num_images"] == Labels.open(place.output).totals.labelled != first.fields["num_images"]
    place.write_label("000.jpg", (place.label("000.jpg") + 1) % 3)
    changed = place.evaluate().report
    assert changed.miou != grown.miou
    fresh = place.evaluate(to=str(tmp_path / "fresh"))
    assert files(str(tmp_path / "fresh")) == files(f"{place.output}/evaluation")
    assert fresh.report.miou == changed.miou


def test_an_output_that_is_not_finished_is_scored_and_says_so(tmp_path):
    place = Place(str(tmp_path / "out"), str(tmp_path / "labels"))
    manifest = begin(Storage(place.output))
    manifest.extend_plan(images(12), 3)
    Storage(place.labels).write("other.png", b"")
    with pytest.raises(ValueError, match="has no masks yet"):
        place.evaluate()
    label_pending(manifest, only=[1])
    place.write_labels()
    evaluated = place.evaluate()
    assert (report_of(place)["finished"], report_of(place)["num_images"]) == (False, 3)
    assert evaluated.exit_code == 0


def test_another_evaluation_in_the_same_place_is_refused(place, tmp_path):
    place.evaluate()
    with pytest.raises(PassMismatch, match="already holds another evaluation"):
        place.evaluate(ignore=0)
    (tmp_path / "more").mkdir()
    place.evaluate(ignore=0, to=str(tmp_path / "more"))


@pytest.mark.parametrize("folder", ["", "/masks", "/commits/mine", "/features"])
def test_places_of_labelled_data_are_refused(place, folder):
    before = files(place.output)
    with pytest.raises(ValueError, match="is a place of labelled data"):
        place.evaluate(to=place.output + folder)
    assert files(place.output) == before


def test_labels_that_are_not_there_are_refused(place, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file there ends in"):
        evaluate(EvaluateOptions(place.output, str(tmp_path / "nowhere")))
    with pytest.raises(FileNotFoundError, match=r"there is no run\.json"):
        evaluate(EvaluateOptions(place.labels, place.labels))
    assert not (Path(place.output) / "evaluation").exists()


def test_the_labelled_data_stays_as_it_is_and_upkeep_does_not_mind(place):
    before = files(place.output)
    place.evaluate()
    after = files(place.output)
    assert {key: data for key, data in after.items() if not key.startswith("evaluation/")} == before
    assert verify(Storage(place.output)).problems == []
    assert clean(Storage(place.output), 0).orphans == ()
    assert status(Storage(place.output)).totals.committed == 7
    assert files(place.output) == after


def test_names_and_maps_decide_what_is_scored(place, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("Sky\nbush\nhorse")
    report = place.evaluate(label_names=str(names)).report.fields
    assert report["unmatched"]["labels"] == {"1": "bush"}
    assert report["unmatched"]["classes"] == ["tree"]
    assert report["classes"][1]["pixels"] == 0
    assert report["miou"] == pytest.approx(np.mean([report["classes"][index]["iou"] for index in (0, 2)]))
    mapping = tmp_path / "map.txt"
    mapping.write_text("0: sky\n1:\n2: horse")
    by_map = place.evaluate(map=str(mapping), to=str(tmp_path / "by_map")).report.fields
    assert by_map["classes"] == report["classes"]


def test_zero_shot_scores_are_in_the_report(place):
    report = place.evaluate(unseen="horse").report.fields
    sky, tree, horse = (row["iou"] for row in report["classes"])
    seen = (sky + tree) / 2
    assert report["zero_shot"] == {
        "unseen": ("horse",),
        "miou_seen": pytest.approx(seen),
        "miou_unseen": horse,
        "harmonic": pytest.approx(2 * seen * horse / (seen + horse)),
    }
    assert report_of(place)["zero_shot"]["unseen"] == ["horse"]


_DIES = """
import os, sys
from proxyclip.dataset.reading.passes import Ledger
from proxyclip.pipeline.evaluate.options import EvaluateOptions
from proxyclip.pipeline.evaluate.run import evaluate
write, written = Ledger.write, []
def write_and_die(*words):
    write(*words)
    written.append(words)
    if len(written) == 3:
        os.kill(os.getpid(), 9)
Ledger.write = write_and_die
evaluate(EvaluateOptions(*sys.argv[1:]))
"""


def test_a_killed_evaluation_goes_on_and_leaves_the_same_bytes(place, tmp_path, monkeypatch):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", _DIES, place.output, place.labels], env=environment)
    assert killed.returncode == -9
    kept = files(f"{place.output}/evaluation")
    assert sum(key.endswith(".receipt") for key in kept) == 3
    assert "evaluation.json" not in kept
    place.evaluate()
    place.evaluate(to=str(tmp_path / "undisturbed"))
    assert files(f"{place.output}/evaluation") == files(str(tmp_path / "undisturbed"))
    assert files(f"{place.output}/evaluation").items() > kept.items()


def test_a_shard_that_cannot_be_read_is_named_and_tried_again(place):
    broken = next((Path(place.output) / "masks").glob("000002-*"))
    data = broken.read_bytes()
    broken.write_bytes(data[:-1])
    first = place.evaluate()
    assert (first.exit_code, list(first.summary.errors)) == (1, [2])
    assert first.report is None
    broken.write_bytes(data)
    assert place.evaluate().report.fields["num_images"] == 18


@pytest.mark.slow
def test_on_ray_the_bytes_are_the_same(place, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    place.evaluate()
    place.evaluate(address="local", concurrency=2, to=str(tmp_path / "ray"))
    assert files(str(tmp_path / "ray")) == files(f"{place.output}/evaluation")


def test_over_s3_the_figures_are_the_same(place, s3):
    there = made(s3.uri("evaluated/set"))
    expected, found = place.evaluate().report.fields, there.evaluate().report.fields
    places = ("source", "labels")
    assert {key: found[key] for key in found if key not in places} == {
        key: expected[key] for key in expected if key not in places
    }
    assert report_of(there)["labels"] == there.labels


def test_the_command_says_what_it_measured_and_what_is_missing(place):
    Storage(place.labels).delete("001.png")
    command = [sys.executable, "-m", "proxyclip", "evaluate", place.output, "--labels", place.labels]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 3, found.stderr
    report = report_of(place)
    assert f"mIoU          {report['miou']:6.2f}" in found.stdout
    assert "2 images have no mask." in found.stdout
    assert "1 images are not scored (no_label 1):\n  001.jpg: there is no label 001.png" in found.stdout
    refused = subprocess.run([*command, "--map", "a", "--label-names", "b"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--map says what every value is; leave --label-names out." in refused.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"map": "m", "reduce_zero_label": True}, "leave --reduce-zero-label out"),
        ({"ignore": 70000}, "--ignore is 70000"),
        ({"worst": -1}, "--worst is -1"),
        ({"concurrency": 0}, "--concurrency is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EvaluateOptions("out", "labels", **changes)
