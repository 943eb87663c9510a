"""Training CLIP-RC: the same bytes after a kill, what is trained, and what a person can do wrong."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cliprc import SMALL, small_cliprc
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import random_image, save_local_models

from proxyclip.config import ModelConfig
from proxyclip.models.cliprc.checkpoint import load_cliprc
from proxyclip.storage.store import Storage
from proxyclip.training.cliprc import run, state
from proxyclip.training.cliprc.augment import augmented
from proxyclip.training.cliprc.opening import open_training
from proxyclip.training.cliprc.options import TrainCliprcOptions
from proxyclip.training.cliprc.settings import TrainSettings
from proxyclip.training.cliprc.start import new_networks, open_clip_tower
from proxyclip.training.cliprc.train import trainable

NAMES = ["sky", "grass", "tree", "water"]


@pytest.fixture
def corpus(tmp_path):
    """Photographs with labels, and a CLIP-RC to begin with; options for a training of some iterations."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random_image(40, 56, number)).save(tmp_path / "images" / f"{number}.jpg")
        label = np.repeat(rng.integers(0, 4, 4), 10)[:, None].repeat(56, 1).astype(np.uint8)
        label[:, :8] = 255
        Image.fromarray(label).save(tmp_path / "labels" / f"{number}.png")
    (tmp_path / "words.txt").write_text("\n".join(NAMES))
    (tmp_path / "start.safetensors").write_bytes(small_cliprc(NAMES, [0, 1, 2]).to_bytes())
    return tmp_path


def options(corpus: Path, name: str = "out", **changes: object) -> TrainCliprcOptions:
    made = TrainCliprcOptions(
        labels=str(corpus / "labels"),
        images=str(corpus / "images"),
        output=str(corpus / name),
        vocabulary=str(corpus / "words.txt"),
        unseen="water",
        start_from=str(corpus / "start.safetensors"),
        image_px=SMALL.image_px,
        prompts=SMALL.prompts,
        iterations=6,
        batch=2,
        warmup=2,
        save_every=2,
        workers=0,
    )
    return dataclasses.replace(made, **changes)


def train(made: TrainCliprcOptions) -> bytes:
    run.execute(open_training(made), lambda _: None)
    return Storage(made.output).read(state.TRAINED)


KILLED = """
import os, signal, sys
from proxyclip.training.cliprc import run, state
from proxyclip.training.cliprc.opening import open_training
from proxyclip.training.cliprc.options import TrainCliprcOptions
import torch
torch.set_num_threads(1)
def killed(line):
    if line.startswith("iteration 2 of"):
        os.kill(os.getpid(), signal.SIGKILL)
made = TrainCliprcOptions(**eval(sys.argv[1]))
run.execute(open_training(made), killed)
"""


def test_a_killed_training_goes_on_to_the_same_bytes(corpus):
    torch.set_num_threads(1)
    whole = train(options(corpus, "whole"))
    made = options(corpus, "killed")
    done = subprocess.run([sys.executable, "-c", KILLED, repr(dataclasses.asdict(made))], check=False)
    assert done.returncode == -signal.SIGKILL
    storage = Storage(made.output)
    assert state.iterations_done(storage) == [2]
    assert not storage.exists(state.TRAINED)
    assert train(made) == whole
    rows = state.read_history(storage, 6)
    assert [row["iteration"] for row in rows] == [2, 4, 6]
    assert all(np.isfinite(row["loss"]) for row in rows)
    before = storage.stat(state.TRAINED)
    assert train(made) == whole
    assert storage.stat(state.TRAINED) == before, "a finished training is left alone"


def test_only_head_and_prompts_are_trained_and_the_bridge_if_told(corpus):
    start = load_cliprc({"checkpoint": corpus / "start.safetensors"}, recovery=True).networks.named_state()
    for frozen in (True, False):
        made = options(corpus, f"bridge-{frozen}", frozen_bridge=frozen, iterations=2)
        train(made)
        model = load_cliprc({"checkpoint": Path(made.output) / state.TRAINED}, recovery=True)
        changed = {name for name, value in model.networks.named_state().items() if not torch.equal(value, start[name])}
        encoder = {name for name in changed if name.startswith("backbone.")}
        assert {name for name in encoder if "prompt" not in name} == (
            set() if frozen else {"backbone.region_level_bridge"}
        )
        assert {"backbone.prompt_embeddings", "backbone.deep_prompt_embeddings"} <= encoder
        assert "decode_head.recovery_decoder.linear_q_in.weight" in changed
        assert model.description.seen == (0, 1, 2)
        assert not model.description.self_training


def test_modes_and_quirks_give_other_weights_and_fully_knows_all_classes(corpus):
    found = {"inductive": train(options(corpus, "inductive"))}
    for name, changes in {
        "transductive": {"mode": "transductive"},
        "fully": {"mode": "fully"},
        "decay": {"decay_norms": False},
        "ignored": {"ignored_are_negatives": False},
    }.items():
        found[name] = train(options(corpus, name, **changes))
    assert len(set(found.values())) == len(found)
    for name, seen, self_training in (("transductive", (0, 1, 2), True), ("fully", (0, 1, 2, 3), False)):
        about = load_cliprc({"checkpoint": corpus / name / state.TRAINED}).description
        assert (about.seen, about.self_training) == (seen, self_training)


def test_scores_are_of_seen_and_unseen_classes(corpus):
    made = options(corpus, score_images=str(corpus / "images"), score_labels=str(corpus / "labels"), iterations=2)
    scores = run.execute(open_training(made), lambda _: None)
    seen = [scores["iou"][name] for name in NAMES[:3] if scores["iou"][name] is not None]
    assert scores["unseen"] == ["water"]
    assert scores["miou_seen"] == pytest.approx(np.mean(seen))
    assert scores["miou_unseen"] == scores["iou"]["water"]
    assert json.loads(Storage(made.output).read(state.SCORES)) == scores


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_state(corpus, monkeypatch):
    from proxyclip.training.cliprc import train as training

    real = training.losses_of
    calls = iter(range(10))

    def broken(logits, *rest, **more):
        return real(logits * (float("nan") if next(calls) == 3 else 1), *rest, **more)

    monkeypatch.setattr(training, "losses_of", broken)
    made = options(corpus)
    with pytest.raises(RuntimeError, match=r"loss is nan in iteration 3\. The state after iteration 2 is kept"):
        train(made)
    assert state.iterations_done(Storage(made.output)) == [2]
    monkeypatch.setattr(training, "losses_of", real)
    assert train(made) == train(options(corpus, "whole"))


def refused(made_by, match: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        open_training(made_by())


def test_workers_in_folders_of_their_own_find_what_was_given(corpus, monkeypatch):
    monkeypatch.chdir(corpus)
    given = {"labels": "labels", "images": "images", "score_images": "images", "score_labels": "labels"}
    opened = open_training(options(corpus, **given, output="out", start_from="start.safetensors"))
    for name in (*given, "output", "start_from"):
        assert Path(getattr(opened.options, name)).is_relative_to(corpus), name


def test_bad_input_is_refused_before_a_training_starts(corpus):
    refused(lambda: options(corpus, workers=7), "6 labelled images for 7 workers")
    refused(lambda: options(corpus, unseen=None), "needs --unseen")
    refused(lambda: options(corpus, unseen="cow"), "cow: not classes")
    refused(lambda: options(corpus, unseen=";".join(NAMES)), "names all 4 classes")
    refused(lambda: options(corpus, unseen="water;tree;grass"), 'pixels only of "sky"')
    refused(lambda: options(corpus, images=None), "give --images too")
    refused(lambda: options(corpus, vocabulary=None), "give --vocabulary too")
    refused(lambda: options(corpus, prompts=4), "another architecture: windows of 64 pixels and 3 prompts")
    refused(lambda: options(corpus, start_from=str(corpus / "none.safetensors")), "no such file")
    (corpus / "few.txt").write_text("sky\ngrass\nwater")
    refused(lambda: options(corpus, vocabulary=str(corpus / "few.txt")), r"holds the value 3.*another vocabulary")
    (corpus / "other.txt").write_text("sky\ngrass\nstone\nwater")
    refused(lambda: options(corpus, vocabulary=str(corpus / "other.txt")), "knows other classes")


def test_labels_that_teach_nothing_are_refused(corpus):
    for path in (corpus / "labels").iterdir():
        Image.fromarray(np.full((40, 56), 255, np.uint8)).save(path)
    refused(lambda: options(corpus), "Every pixel of the labels is ignored")
    for path in (corpus / "labels").iterdir():
        Image.fromarray(np.full((40, 56), 1, np.uint8)).save(path)
    refused(lambda: options(corpus), 'pixels only of "grass"')


def test_an_output_of_another_training_and_changed_labels_are_refused(corpus):
    open_training(options(corpus))
    refused(lambda: options(corpus, lr=1e-3), r"another training: lr is 0\.0002 there and 0\.001 here")
    (corpus / "labels" / "5.png").unlink()
    refused(lambda: options(corpus), "are not those that this training began with")


def test_a_checkpoint_without_recovery_decoder_is_refused(corpus):
    path = corpus / "start.safetensors"
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    state_of = {name: value for name, value in load_file(path).items() if "recovery" not in name}
    save_file(state_of, path, about)
    refused(lambda: options(corpus), r"recovery_decoder.*missing")


def test_networks_begin_as_in_the_release(tmp_path):
    folder = save_local_models(tmp_path)[0]
    clip = open_clip_tower(ModelConfig(clip=f"local-dir:{folder}", proxy=None))
    networks = new_networks(clip, 128, 4, seed=0)
    visual, encoder = clip.model.visual, networks.encoder
    first = visual.class_embedding + visual.positional_embedding[0]
    torch.testing.assert_close(encoder.region_level_bridge, first.expand(16, -1))
    assert torch.equal(encoder.positional_embedding[0], visual.positional_embedding[0])
    assert encoder.positional_embedding.shape == (65, 128)
    assert encoder.prompt_embeddings.abs().max() <= (6 / (3 * 16**2 + 128)) ** 0.5
    for name, value in networks.head.decoder_q.layers[0].state_dict().items():
        assert torch.equal(value, networks.head.decoder_q.layers[2].state_dict()[name])
    assert networks.head.recovery_decoder.linear_k_in.bias.abs().max() == 0
    again = new_networks(clip, 128, 4, seed=0).named_state()
    assert all(torch.equal(value, again[name]) for name, value in networks.named_state().items())
    assert all("prompt" in name or name.startswith("head.") for name in trainable(networks, True))


def test_the_learning_rate_rises_and_falls():
    made = TrainSettings("fully", ("a", "b"), (), 40_000, 8, (100, 1, 0), 512, 10)
    assert made.lr_at(0) == pytest.approx(2e-10)
    assert made.lr_at(1500) == pytest.approx((2e-4 - 1e-6) * (1 - 1500 / 40_000) ** 0.9 + 1e-6)
    assert made.lr_at(39_999) == pytest.approx(1e-6 + 1.99e-4 * (1 / 40_000) ** 0.9)
    rates = [made.lr_at(step) for step in range(0, 1501, 100)]
    assert rates == sorted(rates)


def test_augmentation_keeps_pixels_and_labels_together():
    image = np.zeros((60, 90, 3), np.uint8)
    label = np.zeros((60, 90), np.int32)
    image[:, 45:], label[:, 45:] = 200, 1
    for seed in range(20):
        pixels, found, height, width = augmented(image, label, 64, np.random.default_rng(seed))
        assert (pixels.shape, found.shape) == ((64, 64, 3), (64, 64))
        assert (found[height:] == -1).all()
        assert (found[:, width:] == -1).all()
        inside = found[:height, :width]
        assert set(np.unique(inside)) <= {0, 1}
        bright = pixels[:height, :width].max(axis=2) > 70
        assert (bright == (inside == 1)).mean() > 0.95
