"""Teachers through the whole job: the example plug-in of docs/, installed as a package, and SAM 3."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from cliprc import small_cliprc
from labelling import command, draw, labels
from PIL import Image
from teachers import save_tiny_sam3

from proxyclip.dataset.run_record import RecipeMismatch, write_vocabulary
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.images.reading import load_image
from proxyclip.models.cliprc.teacher import Settings, Teacher
from proxyclip.models.teachers.sam3 import Sam3
from proxyclip.pipeline.cluster.join import cluster
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.reprocess.options import ReprocessOptions
from proxyclip.pipeline.reprocess.run import reprocess
from proxyclip.pipeline.run import execute, label
from proxyclip.pipeline.stages.actor import ActorConfig
from proxyclip.pipeline.stages.label import LabelShards
from proxyclip.pipeline.stages.read import SHARD_SCHEMA
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "example_plugin"
GRASS, SKY, WHITE = (70, 170, 60), (110, 170, 240), (255, 255, 255)
ONE = np.full((20, 30, 3), GRASS, np.uint8)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example, installed by pip into a folder of the path, also for the workers of Ray."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
    subprocess.run([*pip, "--target", folder / "site", folder / "source"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "site"))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder / "site"), os.environ.get("PYTHONPATH")))))
        yield folder / "site"


@pytest.fixture(scope="module")
def one_cluster(installed):
    with cluster("local", verbose=False):
        yield


@pytest.fixture
def options(installed, tmp_path):
    """Three images: sky above grass, and a white one."""
    (tmp_path / "images").mkdir()
    for index in range(2):
        image = np.zeros((30 + index, 40, 3), np.uint8)
        image[:10], image[10:] = SKY, GRASS
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
    Image.new("RGB", (9, 8), WHITE).save(tmp_path / "images" / "white.png")
    (tmp_path / "words.txt").write_text("brick\ngrass; lawn\nsky")
    places = (str(tmp_path / "images"), str(tmp_path / "out"), str(tmp_path / "words.txt"))
    return LabelOptions(*places, method="nearest-colour", shard_size=2, threads=1)


def changed(options: LabelOptions, **changes: object) -> LabelOptions:
    return dataclasses.replace(options, **changes)


def recipe(options: LabelOptions) -> dict:
    return open_run(options).record("float32").recipe


def test_the_example_is_short():
    lines = [line for path in (EXAMPLE / "nearest_colour").glob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) <= 60


def test_a_plug_in_labels_a_corpus_and_other_settings_or_weights_are_refused(options, one_cluster, tmp_path):
    options = changed(options, ignore_below=0.2)
    summary = label(options)
    assert (summary.labelled, summary.failed, summary.exit_code) == (3, 0, 0)
    masks = labels(options.output)
    for index in range(2):
        assert (masks[f"{index}.png"][:10] == 2).all()
        assert (masks[f"{index}.png"][10:] == 1).all()
    assert (masks["white.png"] == 255).all()
    assert verify(Storage(options.output)).problems == []
    record = json.loads((Path(options.output) / "run.json").read_text())
    assert record["packages"]["proxyclip-nearest-colour"] == "0.1.0"
    assert record["recipe"]["weights"].keys() == {"colours.json"}
    assert record["recipe"]["segmenter"]["model"] == {
        "method": "nearest-colour",
        "settings": {"sharpness": 10.0},
        "dtype": "float32",
    }
    assert execute(open_run(options), lambda run: pytest.fail("a finished run needs no cluster")).finished
    with pytest.raises(RecipeMismatch, match=r"--method-settings sharpness: this run has 5.0, .* made with 10.0"):
        open_run(changed(options, method_settings='{"sharpness": 5}'))
    (tmp_path / "mine.json").write_text('{"sky": [0, 0, 0]}')
    with pytest.raises(RecipeMismatch, match=r"weights.colours.json"):
        open_run(changed(options, method_weights=str(tmp_path / "mine.json")))
    with pytest.raises(RecipeMismatch, match="--method: this run has 'proxyclip'"):
        open_run(LabelOptions(options.input, options.output, options.vocabulary, preset="demo"))


@pytest.fixture
def config(options):
    """What an actor of the run is made from."""
    run = open_run(options)
    write_vocabulary(Storage(options.output), run.vocabulary)
    return ActorConfig(
        segmenter=run.config_in("float32"),
        weights=run.weights,
        output=options.output,
        device="cpu",
        threads=1,
        batch_windows=8,
        confidence_stride=4,
        image_timeout_s=60,
    )


def label_shard(config: ActorConfig, images: dict[str, np.ndarray]) -> dict:
    """What an actor makes of a shard, without Ray."""
    data = [png(image) for image in images.values()]
    empty = dict.fromkeys(SHARD_SCHEMA.names)
    row = {"shard": 0, "uris": list(images), "data": data, "fetch_errors": [None] * len(data), "retries": 0}
    worker = LabelShards(config)
    (found,) = worker(pa.Table.from_pylist([{**empty, **row}], SHARD_SCHEMA)).to_pylist()
    worker.close()
    return found


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_worker_with_other_weights_labels_nothing(config):
    found = label_shard(dataclasses.replace(config, weights={"colours.json": "0" * 64}), {"a.png": ONE})
    assert (found["images"], found["failures"]) == ([], [])
    assert f"sha256 {config.weights['colours.json']}, but the run started with {'0' * 64}" in found["error"]


def test_an_image_that_memory_does_not_take_fails_alone(config, monkeypatch):
    from nearest_colour.model import NearestColour

    encode = NearestColour.encode

    def refuse_white(self, image):
        if image.min() == 255:
            torch.empty(2**48, dtype=torch.uint8)
        return encode(self, image)

    monkeypatch.setattr(NearestColour, "encode", refuse_white)
    found = label_shard(config, {"a.png": ONE, "b.png": np.full((50, 60, 3), 255, np.uint8), "c.png": ONE})
    assert [image["uri"] for image in found["images"]] == ["a.png", "c.png"]
    assert [failure["status"] for failure in found["failures"]] == ["out_of_memory"]
    assert found["failures"][0]["reason"].startswith("60 x 50 pixels")


def test_an_error_of_a_plug_in_fails_the_shard_with_its_reason(config, monkeypatch):
    from nearest_colour.model import NearestColour

    monkeypatch.setattr(NearestColour, "encode", lambda self, image: torch.zeros(3, 3, 3))
    found = label_shard(config, {"a.png": ONE})
    assert found["images"] == []
    assert "Method nearest-colour: winner has shape (3, 3), but the image has (20, 30)" in found["error"]


def test_sam3_labels_a_corpus_from_local_weights_as_the_library_does(installed, one_cluster, tmp_path):
    draw(tmp_path / "images", 5)
    folder = save_tiny_sam3(tmp_path / "sam3")
    names = tmp_path / "names.json"
    classes = ["background", {"name": "grass", "synonyms": ["lawn"]}, "tree", "sky"]
    names.write_text(json.dumps({"classes": classes, "background": "background"}))
    options = LabelOptions(str(tmp_path / "images"), str(tmp_path / "out"), str(names), method="sam3", threads=1)
    options = changed(options, method_weights=str(folder), background_threshold=0.2, ignore_below=0.15, shard_size=2)
    summary = label(options)
    assert (summary.labelled, summary.failed, summary.shard_errors) == (5, 0, {})
    teacher, vocabulary = Sam3.from_folder(folder), Vocabulary.from_file(names)
    for uri, mask in labels(options.output).items():
        found = teacher.decode(teacher.encode(load_image(tmp_path / "images" / uri)), vocabulary)
        expected = found.winner.masked_fill(found.confidence < 0.2, 0).masked_fill(found.confidence < 0.15, 255)
        assert (mask == expected.numpy()).mean() > 0.999, "up to the last bits of a probability at a threshold"
    values = np.unique(np.concatenate([mask.ravel() for mask in labels(options.output).values()]))
    assert {0, 255} < set(values.tolist())


def test_cliprc_labels_a_corpus_as_its_networks_do_and_refuses_other_classes(options, one_cluster, tmp_path):
    draw(tmp_path / "images", 3)
    model = small_cliprc(["brick", "grass", "sky", "sea"], [0, 1], seed=4)
    (tmp_path / "c.safetensors").write_bytes(model.to_bytes())
    options = changed(options, method="cliprc", method_weights=str(tmp_path / "c.safetensors"), ignore_below=0.3)
    options = changed(options, method_settings='{"crop": 48}')
    (tmp_path / "others.txt").write_text("sky\ncow")
    with pytest.raises(ValueError, match='no text for "cow"'):
        open_run(changed(options, vocabulary=str(tmp_path / "others.txt")))
    assert not Path(options.output).exists()
    summary = label(options)
    assert (summary.labelled, summary.failed, summary.shard_errors) == (6, 0, {})
    assert verify(Storage(options.output)).problems == []
    teacher, vocabulary = Teacher(model, Settings(crop=48)), Vocabulary.from_file(options.vocabulary)
    for uri, mask in labels(options.output).items():
        found = teacher.decode(teacher.encode(load_image(tmp_path / "images" / uri)), vocabulary)
        assert (mask == found.winner.masked_fill(found.confidence < 0.3, 255).numpy()).mean() > 0.999, uri
    values = np.unique(np.concatenate([mask.ravel() for mask in labels(options.output).values()]))
    assert len(values) > 2
    with pytest.raises(RecipeMismatch, match="seen_offset"):
        open_run(changed(options, method_settings='{"crop": 48, "seen_offset": 0.2}'))


REFUSED = {
    "preset": ({"preset": "demo"}, "--preset has no effect with --method nearest-colour"),
    "benchmark": ({"benchmark": "voc21"}, "--benchmark"),
    "quality": ({"quality": "fast"}, "--quality"),
    "proxy": ({"proxy": "dino-b8"}, "--proxy .* no proxy"),
    "clip": ({"clip_weights": "here"}, "--clip-weights .* no CLIP"),
    "windows": ({"crop": 0}, "--crop .* whole"),
    "fast decoding": ({"fast_decode": True}, "--fast-decode"),
    "pamr": ({"pamr_steps": 10}, "--pamr-steps"),
    "batches": ({"batch_windows": 4}, "--batch-windows"),
    "features": ({"keep_features": True}, "keeps no features.*--keep-features.*`proxyclip relabel`"),
    "setting": ({"method_settings": '{"sharpnes": 1}'}, "Did you mean 'sharpness'"),
    "setting's value": ({"method_settings": '{"sharpness": -1}'}, "sharpness is -1.0; it must be above 0"),
    "weights": ({"method_weights": "nowhere.json"}, "nowhere.json"),
    "background": ({"background_threshold": 0.5}, "no background class"),
    "method": ({"method": "nearest-color"}, "Did you mean 'nearest-colour'"),
    "method of CLIP": ({"method": "maskclip", "method_settings": "{}"}, "takes no --method-settings"),
    "cliprc without weights": ({"method": "cliprc"}, "cliprc needs --method-weights"),
    "sam3 without weights": ({"method": "sam3"}, "--method-weights FOLDER"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_makes_no_sense_is_refused_before_anything_is_written(options, mistake):
    changes, told = REFUSED[mistake]
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        open_run(changed(options, **changes))
    assert not Path(options.output).exists()


def test_reprocessing_needs_features_and_says_so(options, tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("sky")
    with pytest.raises(ValueError, match=r"keeps no features.*`proxyclip reprocess`"):
        reprocess(ReprocessOptions(options.input, str(tmp_path / "words"), options.output, method=options.method))


@pytest.mark.parametrize("mistake", ["crop", "presets"])
def test_a_plug_in_is_found_without_torch_ray_and_transformers(options, mistake):
    words = ["presets", "colour"] if mistake == "presets" else ["label", *command(changed(options, crop=0))[2:]]
    code = (
        "import sys; from proxyclip.cli import main\n"
        "try: main()\n"
        "finally: print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "[]"
    if mistake == "presets":
        assert run.returncode == 0
        assert "nearest-colour Apache-2.0, from proxyclip-nearest-colour 0.1.0" in run.stdout
    else:
        assert run.returncode == 2
        assert run.stderr.startswith("error: --crop has no effect")


def test_the_settings_of_a_plug_in_change_the_fingerprint(options):
    one, other = recipe(options), recipe(changed(options, method_settings='{"sharpness": 5}'))
    assert one["segmenter"]["model"]["settings"] == {"sharpness": 10.0}
    one["segmenter"]["model"]["settings"] = {"sharpness": 5.0}
    assert one == other
