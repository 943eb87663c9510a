"""Opening a run finds mistakes in a second: without torch, without Ray, and before anything is written."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from labelling import command, draw, small_options
from outputs import files
from safetensors.numpy import save_file

from proxyclip.config import fingerprint
from proxyclip.dataset.run_record import RecipeMismatch, begin_run, write_vocabulary
from proxyclip.pipeline.opening import open_run
from proxyclip.storage.store import Storage


@pytest.fixture
def options(tmp_path):
    draw(tmp_path / "images", 4)
    return small_options(tmp_path / "images")


def begin(options) -> Storage:
    """Record the run, as an execution does first."""
    run = open_run(dataclasses.replace(options, dtype="float32"))
    begin_run(run.manifest.storage, run.record("float32"), run.vocabulary.to_json())
    write_vocabulary(run.manifest.storage, run.vocabulary)
    return run.manifest.storage


def test_a_new_run_is_listed_and_nothing_is_written(options):
    run = open_run(options)
    assert len(run.listing) == 4
    assert (run.dtype, run.pending) == (None, [])
    assert not Path(options.output).exists()


def test_planned_shards_come_before_the_listing(options):
    begin(options)
    run = open_run(options)
    assert (run.dtype, len(run.listing), run.pending) == ("float32", 4, [])
    run.manifest.extend_plan(run.listing, 2)
    run = open_run(options)
    assert run.listing is None
    assert [shards.shards for shards in run.pending] == [(0, 1)]


def test_another_vocabulary_is_told_in_words(options):
    begin(options)
    names = Path(options.vocabulary)
    names.write_text("sky; heaven\ngrass\npine\nwater\nstone\nroad")
    with pytest.raises(RecipeMismatch) as refused:
        open_run(options)
    told = str(refused.value)
    for word in ("heaven", "pine", "tree", "road"):
        assert word in told
    assert fingerprint({})[:8] not in told
    assert "another --output" in told


def test_an_output_made_before_a_setting_existed_goes_on(options):
    """A recipe without gaussian_std, as versions before it wrote, has the value that they used."""
    storage = begin(options)
    record = json.loads(storage.read("run.json"))
    del record["recipe"]["segmenter"]["model"]["gaussian_std"]
    storage.write("run.json", json.dumps(record).encode())
    assert open_run(options).dtype == "float32"
    with pytest.raises(RecipeMismatch, match="--gaussian-std"):
        open_run(dataclasses.replace(options, gaussian_std=4.0))


def test_embeddings_of_another_clip_are_refused(options, tmp_path):
    save_file({"embeddings": np.eye(5, 7, dtype=np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"7 numbers.* 64"):
        open_run(dataclasses.replace(options, embeddings=str(tmp_path / "other.safetensors")))


def test_an_output_that_cannot_be_written_is_refused(options, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        open_run(dataclasses.replace(options, output=str(tmp_path / "file" / "labels")))


MISTAKES = {
    "vocabulary": ({"vocabulary": "voc12"}, "voc21"),
    "preset": ({"preset": "proxyclip-b16-dino-b9"}, "proxyclip-b16-dino-b8"),
    "input": ({"input": "nowhere"}, "nowhere"),
    "weights": ({"clip": "local-dir:nowhere"}, "nowhere"),
    "method": ({"method": "maskclib"}, "maskclip"),
    "quality": ({"quality": "bset"}, "Did you mean 'best'? Qualities: exact, balanced, fast, best."),
    "benchmark": ({"benchmark": "voc2"}, "voc21"),
    "proxy that gains nothing": (
        {"preset": "proxyclip-b16-sam-b", "proxy_weights": "here", "quality": "fast"},
        "exact",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_without_torch_and_ray(options, mistake, tmp_path):
    change, told = MISTAKES[mistake]
    words = command(dataclasses.replace(options, **change))[2:]
    code = (
        "import sys; from proxyclip.cli import run_job; code = run_job('label'); "
        "print([name for name in ('torch', 'ray', 'open_clip', 'timm') if name in sys.modules]); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("error: ")
    assert told in run.stderr
    assert run.stdout.strip() == "[]"
    assert not Path(options.output).exists()


def test_an_input_that_is_gone_is_told_and_costs_nothing(options):
    storage = begin(options)
    before = files(storage)
    Path(options.input).rename(Path(options.input).with_name("elsewhere"))
    with pytest.raises(FileNotFoundError, match="images"):
        open_run(options)
    assert files(storage) == before
