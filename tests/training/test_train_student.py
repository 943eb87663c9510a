"""Training students: one worker, without Ray."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from students import ROOT, small_training, train

from proxyclip.dataset.reading.labels import Labels
from proxyclip.models.student.teacher import load_network
from proxyclip.pipeline.train_student.opening import open_training
from proxyclip.storage.store import Storage
from proxyclip.training.student.loop import Training, TrainingStopped
from proxyclip.training.student.masks import fingerprint_of, split
from proxyclip.training.student.objective import class_weights, weighted_cross_entropy
from proxyclip.training.student.results import Normalised
from proxyclip.training.student.settings import TrainSettings
from proxyclip.vocabulary.thresholds import ClassEvidence, Thresholds


def test_the_loss_is_that_of_the_pixels_with_a_class_by_their_confidence():
    torch.manual_seed(0)
    logits, mask = torch.randn(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 255]]])
    confidence = torch.tensor([[[0.5, 1.0], [0.25, 0.9]]])
    loss = weighted_cross_entropy(logits, mask, confidence, ignore=255, settings=TrainSettings(), classes=None)
    each = [-logits[0, :, y, x].log_softmax(0)[c] for (y, x), c in {(0, 0): 0, (0, 1): 1, (1, 0): 2}.items()]
    assert loss.item() == pytest.approx(float((0.5 * each[0] + each[1] + 0.25 * each[2]) / 1.75), rel=1e-6)
    flat = TrainSettings(confidence=0)
    loss = weighted_cross_entropy(logits, mask, confidence, ignore=255, settings=flat, classes=None)
    assert loss.item() == pytest.approx(float(sum(each) / 3), rel=1e-6)


def test_a_batch_without_labelled_pixels_has_loss_0_and_rare_classes_weigh_more():
    nothing = torch.full((1, 2, 2), 255)
    loss = weighted_cross_entropy(
        torch.randn(1, 3, 2, 2), nothing, torch.ones(1, 2, 2), ignore=255, settings=TrainSettings(), classes=None
    )
    assert loss.item() == 0
    weights = class_weights([900, 100, 0], 0.5)
    assert weights[1] / weights[0] == pytest.approx(3, rel=1e-4)
    assert float(weights[0] * 0.9 + weights[1] * 0.1) == pytest.approx(1, rel=1e-4)


def test_held_out_images_depend_on_their_names_alone():
    names = [f"{number}.jpg" for number in range(400)]
    learn, held = split(names, 0.25, ["3.jpg"])
    assert 70 < len(held) < 130
    assert sorted([*learn, *held]) == [index for index in range(400) if index != 3]
    fewer = names[:100]
    assert {fewer[i] for i in split(fewer, 0.25, [])[1]} == {names[i] for i in split(names, 0.25, [])[1] if i < 100}


def test_a_killed_training_ends_in_the_same_bytes(output, tmp_path):
    train(small_training(output, str(tmp_path / "whole"), {"steps": 30}))
    command = [sys.executable, str(ROOT / "tests" / "students.py"), output, str(tmp_path / "killed"), "30"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})
    commit = tmp_path / "killed" / "checkpoint.json"
    while process.poll() is None and not (commit.exists() and json.loads(commit.read_text())["step"] >= 6):
        os.sched_yield()
    process.kill()
    assert process.wait() != 0, "it must be killed before its end"
    (tmp_path / "killed" / "checkpoints" / "step-00000099.pt").write_bytes(b"half of a checkpoint")
    resumed = train(small_training(output, str(tmp_path / "killed"), {"steps": 30}))
    assert resumed.history[0]["step"] == 2, "it went on from a checkpoint"
    for name in ("student.safetensors", "history.json", "student.onnx", "curves.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("architecture", "encoder"), [("light", "test_vit"), ("segformer", "test_resnet"), ("upernet", "test_resnet")]
)
def test_the_exported_files_give_the_same_labels(output, tmp_path, architecture, encoder):
    import onnxruntime

    to = tmp_path / "ckpt"
    train(small_training(output, str(to), {"architecture": architecture, "encoder": encoder, "size": 64}))
    network, card = load_network(to / "student.safetensors")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC), np.float32)
    image = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = Normalised(network, card)(image).argmax(1).numpy()
    exported = torch.export.load(to / "student.pt2").module()(image).argmax(1).numpy()
    session = onnxruntime.InferenceSession((to / "student.onnx").read_bytes())
    onnx = session.run(["logits"], {"image": image.numpy()})[0].argmax(1)
    assert (exported == expected).mean() >= 0.999
    assert (onnx == expected).mean() >= 0.999
    assert json.loads((to / "card.json").read_text())["score"]["on"] == "held-out pseudo-labels"
    for name in ("curves.png", "predictions.png"):
        Image.open(io.BytesIO((to / name).read_bytes())).verify()


def test_a_student_learns_what_its_masks_say(tmp_path):
    """Two colours, two classes: after a few steps it labels images that it has not seen."""
    output = _two_colours(tmp_path)
    settings = {"steps": 60, "batch_size": 4, "lr": 3e-3, "encoder_lr": 1.0, "colour": 0.0, "ema": 0.9}
    training = train(small_training(output, str(tmp_path / "ckpt"), settings, checkpoint_every=60))
    assert training.history[-1]["miou"] > 80


def test_a_loss_that_is_no_number_stops_with_the_step_and_keeps_the_last_checkpoint(output, tmp_path, monkeypatch):
    options = small_training(output, str(tmp_path / "ckpt"), {"steps": 6})
    training = Training(open_training(options).job, torch.device("cpu"))
    step = training._average

    def poison() -> None:
        step()
        if training.step == 3:
            with torch.no_grad():
                training.network.label.weight.fill_(float("nan"))

    monkeypatch.setattr(training, "_average", poison)
    with pytest.raises(TrainingStopped, match=r"step 5: the loss is nan.*checkpoint is that of step"):
        training.run(lambda event: None)
    assert training.checkpoints.load()["step"] in (2, 4)


def test_masks_that_change_are_refused(output, tmp_path):
    options = small_training(output, str(tmp_path / "ckpt"))
    job = open_training(options).job
    stale = dataclasses.replace(job, masks=dataclasses.replace(job.masks, fingerprint="another"))
    with pytest.raises(TrainingStopped, match="has changed since the training began"):
        Training(stale, torch.device("cpu"))
    assert fingerprint_of(Labels.open(output)) == job.masks.fingerprint
    train(options)
    for changes, message in (
        ({"lr": 1e-3}, "its lr is 0.0006, now it is 0.001"),
        ({"encoder": "test_vit2"}, "its encoder is 'test_vit'"),
    ):
        with pytest.raises(ValueError, match=message):
            open_training(small_training(output, options.output, changes))


REFUSED = {
    "workers": ({"workers": 40}, "fewer than 40 workers"),
    "weights": ({"encoder_weights": "nowhere.safetensors"}, "there is no such file"),
    "labels": ({"val_labels": "nowhere"}, "no file there ends in"),
    "both": ({"ignore_below": 0.5, "thresholds": "x.json"}, "not both"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_work_starts(output, tmp_path, case):
    changes, message = REFUSED[case]
    with pytest.raises((ValueError, OSError), match=message):
        open_training(small_training(output, str(tmp_path / "ckpt"), **changes))
    assert not (tmp_path / "ckpt").exists()


@pytest.mark.parametrize(("value", "message"), [(255, "every pixel of its 12 images is ignored"), (1, 'are "blue"')])
def test_masks_without_two_classes_are_refused(tmp_path, value, message):
    output = _two_colours(tmp_path, value)
    with pytest.raises(ValueError, match=message):
        open_training(small_training(output, str(tmp_path / "ckpt")))


def test_workers_in_folders_of_their_own_find_what_was_given(output, tmp_path, monkeypatch):
    labels = Labels.open(output)
    thresholds = Thresholds.uniform(0.1, labels.vocabulary.num_classes)
    evidence = [ClassEvidence("none", 0, 0, 0.0)] * labels.vocabulary.num_classes
    (tmp_path / "thresholds.json").write_bytes(thresholds.to_json(labels.vocabulary, evidence))
    image = next(iter(labels.images()))
    Storage(str(tmp_path / "truth")).write(f"{Path(image.uri).stem}.png", image.mask)
    monkeypatch.chdir(tmp_path)
    given = {"val_labels": "truth", "images": "images", "thresholds": "thresholds.json"}
    job = open_training(small_training(os.path.relpath(output), "ckpt", **given)).job
    for place in (job.labels, job.images, job.val_images, job.val_labels, job.output):
        assert Path(str(place)).is_relative_to(tmp_path)
    assert job.thresholds == thresholds


def test_a_labelled_sample_is_validated_on_and_not_learned_from(output, tmp_path):
    labels = Labels.open(output)
    some = list(labels.images())[:3]
    for image in some:
        Storage(str(tmp_path / "truth")).write(f"{Path(image.uri).stem}.png", image.mask)
    options = small_training(output, str(tmp_path / "ckpt"), val_labels=str(tmp_path / "truth"))
    training = train(options)
    assert not {training.dataset.uris[index].as_py() for index in training.learn} & {image.uri for image in some}
    score = json.loads((tmp_path / "ckpt" / "card.json").read_text())["score"]
    assert (score["on"], score["images"]) == ("labelled sample", 3)


def _two_colours(root: Path, only: int | None = None) -> str:
    """Images of a red and a blue half, with masks that say so."""
    from outputs import RECORD, images

    from proxyclip.dataset.manifest import Manifest
    from proxyclip.dataset.masks import confidence_to_png, mask_to_png
    from proxyclip.dataset.rows import LabelledImage
    from proxyclip.dataset.run_record import begin_run
    from proxyclip.dataset.shards import write_shard
    from proxyclip.vocabulary.palette import default_palette

    folder, output = Storage(f"{root}/colours"), Storage(f"{root}/colour-labels")
    begin_run(output, dataclasses.replace(RECORD, input=folder.uri), {"name": "two", "classes": ["red", "blue"]})
    listing = images(12)
    Manifest(output).extend_plan(listing, 12)
    rows = []
    for number, image in enumerate(listing):
        cut = 16 + 2 * number
        mask = np.zeros((48, 48), np.uint8)
        mask[:, cut:] = 1
        pixels = np.where(mask[..., None], (20, 20, 230), (230, 20, 20)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        folder.write(image.uri, buffer.getvalue())
        mask = mask if only is None else np.full_like(mask, only)
        classes, counts = np.unique(mask[mask != 255], return_counts=True)
        rows.append(
            LabelledImage(
                uri=image.uri,
                height=48,
                width=48,
                mask=mask_to_png(mask, default_palette(2)),
                confidence=confidence_to_png(np.full((12, 12), 200, np.uint8)),
                classes=classes.tolist(),
                pixels=counts.tolist(),
                class_confidence=[0.8] * len(classes),
                mean_confidence=0.8,
                ignored=int((mask == 255).sum()),
            )
        )
    write_shard(output, 0, rows, [], ["red", "blue"])
    return output.uri
