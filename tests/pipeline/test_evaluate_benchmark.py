"""Benchmarks from a user's copy: labelled, scored as an independent metric does, compared with the published mIoU."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_copies import BORDER, CLASSES, Guessing, make
from labelling import files
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from proxyclip.demo import CLIP_FOLDER, PROXY_FOLDER
from proxyclip.evaluation.benchmarks.layouts import LAYOUTS
from proxyclip.pipeline.evaluate import benchmark
from proxyclip.pipeline.evaluate.benchmark import TOLERANCE, measure
from proxyclip.pipeline.evaluate.options import BenchmarkOptions
from proxyclip.pipeline.run import execute
from proxyclip.storage.store import Storage

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {"clip": f"local-dir:{CLIP_FOLDER}", "proxy": f"local-dir:{PROXY_FOLDER}"}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Make a copy and measure it, with its `guess` in place of the networks' labels."""

    copies = {}

    def run(name, as_shipped=False, **changes):
        if name not in copies:
            copies[name] = make(name, tmp_path / name, as_shipped=as_shipped)
        copy = copies[name]
        monkeypatch.setattr(benchmark, "execute", partial(execute, make_runner=partial(Guessing, guess=copy.guess)))
        options = {"data": str(copy.root), "output": str(tmp_path / "out"), "shard_size": 2, **NETWORKS, **changes}
        return copy, measure(BenchmarkOptions(benchmark=name, **options))

    return run


def expected_iou(copy, num_classes, ignore, stray=None):
    """Each class's IoU by torchmetrics, NaN where it does not occur.

    ignore: which values of `truth` leave both maps. stray: those that only leave the labels, as a class of their own.
    """
    truth = np.concatenate([copy.truth[uri].ravel() for uri in copy.truth])
    guess = np.concatenate([copy.guess[uri].ravel().astype(np.int64) for uri in copy.truth])
    outside = np.isin(truth, stray or [])
    kept = ~np.isin(truth, ignore)
    target = torch.from_numpy(np.where(outside, num_classes, truth)[kept])
    prediction = torch.from_numpy(guess[kept])
    counts = MulticlassConfusionMatrix(num_classes + 1)(prediction, target).numpy()
    iou = 100 * MulticlassJaccardIndex(num_classes + 1, average=None)(prediction, target).numpy().astype(float)
    iou[(counts.sum(0) + counts.sum(1)) == 0] = np.nan
    return iou[:num_classes]


def scores(evaluated):
    return np.array([np.nan if row["iou"] is None else row["iou"] for row in evaluated.report.fields["classes"]])


SHIPPED = ("cityscapes", "coco_stuff", "coco_object")
COPIES = [(name, False) for name in LAYOUTS] + [(name, True) for name in SHIPPED]


@pytest.mark.parametrize(("name", "as_shipped"), COPIES)
def test_a_benchmark_scores_as_an_independent_metric_does(name, as_shipped, measured):
    copy, found = measured(name, as_shipped=as_shipped)
    count = CLASSES[name]
    sixteen_bits = count > 255
    void = [-1, BORDER]
    expected = expected_iou(copy, count, [255], stray=void) if sixteen_bits else expected_iou(copy, count, void)
    published = found.evaluated["as published"]
    np.testing.assert_allclose(scores(published), expected, atol=1e-4)
    assert published.report.miou == pytest.approx(np.nanmean(expected), abs=1e-4)
    assert published.report.fields["num_images"] == 3
    assert (published.report.fields["confusion"] is None) == (count > 200)
    assert found.evaluated.keys() == ({"as published", "correct"} if sixteen_bits else {"as published"})
    if sixteen_bits:
        correct = found.evaluated["correct"]
        np.testing.assert_allclose(scores(correct), expected_iou(copy, count, void), atol=1e-4)
        assert scores(published)[255] == 0
        assert scores(correct)[255] > 0
        assert correct.report.fields["benchmark"]["ignore_rule"] == "correct"


@pytest.mark.parametrize("off", [None, 0.0, TOLERANCE, TOLERANCE + 0.01, -TOLERANCE - 0.01])
def test_the_exit_code_says_whether_the_figure_is_the_published_one(off, measured, monkeypatch):
    copy, found = measured("voc20")
    miou = found.evaluated["as published"].report.miou
    published = {} if off is None else {"voc20": miou - off}
    preset = benchmark.preset("proxyclip-b16-dino-b8")
    monkeypatch.setattr(benchmark, "preset", lambda name: type(preset)(preset.config, {}, {}, published))
    _, again = measured("voc20")
    assert again.difference == (None if off is None else pytest.approx(off))
    assert again.exit_code == (0 if off is None or abs(off) <= TOLERANCE else 1)
    assert copy.truth


def test_a_second_run_labels_and_scores_nothing_again(measured, tmp_path, monkeypatch):
    measured("coco_object")
    before = files(str(tmp_path / "out"))
    monkeypatch.setattr("proxyclip.pipeline.evaluate.run.ScoreShard.__call__", pytest.fail)
    measured("coco_object")
    assert files(str(tmp_path / "out")) == before


def test_a_copy_in_a_store_gives_the_same_figures(measured, tmp_path, s3):
    _, here = measured("cityscapes")
    store = Storage(s3.uri("benchmarks/cityscapes"))
    for path in filter(Path.is_file, (tmp_path / "cityscapes").rglob("*")):
        store.write(path.relative_to(tmp_path / "cityscapes").as_posix(), path.read_bytes())
    _, there = measured("cityscapes", data=store.uri, output=s3.uri("benchmarks/out"))
    figures = [scores(each.evaluated["as published"]) for each in (there, here)]
    np.testing.assert_array_equal(*figures)
    assert there.evaluated["as published"].destination == "s3://benchmarks/out/evaluation"


def test_missing_files_are_named_before_anything_is_written(tmp_path):
    make("voc21", tmp_path / "data")
    (tmp_path / "data" / "SegmentationClass" / "2008_000001.png").unlink()
    command = [sys.executable, str(ROOT / "jobs" / "evaluate.py"), "--benchmark=voc21", f"--data={tmp_path / 'data'}"]
    found = subprocess.run([*command, f"--output={tmp_path / 'out'}"], capture_output=True, text=True)
    assert found.returncode == 2
    assert "missing SegmentationClass/2008_000001.png; download VOC 2012" in found.stderr
    assert not (tmp_path / "out").exists()


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown benchmark 'voc12'\. Did you mean 'voc21'"):
        measure(BenchmarkOptions("voc12", str(tmp_path), str(tmp_path / "out")))
    make("ade847", tmp_path)
    with pytest.raises(ValueError, match="has no published settings for benchmark 'ade847'"):
        measure(BenchmarkOptions("ade847", str(tmp_path), str(tmp_path / "out"), preset="clearclip-b16"))


@pytest.mark.slow
def test_the_job_labels_a_copy_with_networks_and_exits_with_1_as_the_demo_networks_are_not_the_papers(tmp_path):
    make("voc21", tmp_path / "data")
    command = [sys.executable, str(ROOT / "jobs" / "evaluate.py"), "--benchmark=voc21", f"--data={tmp_path / 'data'}"]
    command += [f"--output={tmp_path / 'out'}", *(f"--{part}={place}" for part, place in NETWORKS.items())]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 1, found.stderr
    report = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text())
    assert report["num_images"] == 3  # the fourth is not in the split
    assert f"measured mIoU   {report['miou']:6.2f}" in found.stdout
    assert "published mIoU   61.30" in found.stdout
    assert f"difference      {report['miou'] - 61.3:+.2f}, more than 0.7" in found.stdout
    assert "The published split has 1449 images, this copy 3." in found.stdout
