"""A shard that keeps killing its worker is set aside; a storage that stays down ends the run."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from labelling import embeddings_of
from PIL import Image
from tiny import random_image

from proxyclip.dataset.commits import committed
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.pipeline.stages.starts import Turns
from proxyclip.storage.store import Storage

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = ROOT / "proxyclip" / "demo" / "vocabulary.json"
POISON_PX = 77
DEADLINE_S = 600

# What a driver fault or the machine's memory does to a process: it is gone, in the midst of labelling.
SITECUSTOMIZE = f"""
    import importlib.abc, importlib.machinery, os, signal, sys

    class Poisoned(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name != "proxyclip.models.segmenter":
                return None
            sys.meta_path.remove(self)
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                encode = module.Segmenter.encode_batch

                def encode_batch(self, images):
                    if any(image.original_hw[1] == {POISON_PX} for image in images):
                        os.kill(os.getpid(), signal.SIGKILL)
                    return encode(self, images)

                module.Segmenter.encode_batch = encode_batch

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Poisoned())
"""


@pytest.fixture
def command(tmp_path):
    """A job over nine images in three shards, one image of which is poison."""
    (tmp_path / "images").mkdir()
    for index in range(9):
        width = POISON_PX if index == 4 else 80
        Image.fromarray(random_image(60, width, index)).save(tmp_path / "images" / f"{index}.png")
    words = [sys.executable, ROOT / "jobs" / "label.py", "--preset", "demo", "--shard-size", 3, "--threads", 1]
    words += ["--input", tmp_path / "images", "--output", tmp_path / "out"]
    words += ["--vocabulary", VOCABULARY, "--embeddings", embeddings_of(VOCABULARY, tmp_path)]
    return [str(word) for word in words]


@pytest.mark.slow
def test_a_shard_that_keeps_killing_its_actor_is_set_aside(command, tmp_path, monkeypatch):
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "sitecustomize.py").write_text(textwrap.dedent(SITECUSTOMIZE))
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "poison"), prepend=":")
        run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert run.returncode == 1, run.stderr
    assert "Shard 1 failed: RuntimeError: its worker died 3 times while labelling it" in run.stderr
    assert "Shards not done: 1" in run.stderr
    output = Storage(str(tmp_path / "out"))
    assert sorted(committed(output)) == [0, 2]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)  # without the poison
    assert run.returncode == 0, run.stderr
    report = verify(output)
    assert not report.problems
    assert not report.unfinished
    assert report.images == 9


def test_two_shards_work_at_once_and_a_suspect_works_alone():
    turns, both = Turns(2), threading.Barrier(2)
    inside: list[bool] = []
    seen: list[tuple[bool, ...]] = []

    def work(alone: bool) -> None:
        with turns.take(alone=alone):
            inside.append(alone)
            seen.append(tuple(inside))
            inside.remove(alone)

    def meet() -> None:
        with turns.take(alone=False):
            both.wait(DEADLINE_S)

    shards = [True] * 50 + [False] * 150
    random.Random(0).shuffle(shards)
    with ThreadPoolExecutor(8) as pool:
        for met in [pool.submit(meet), pool.submit(meet)]:
            met.result(DEADLINE_S)
        for done in [pool.submit(work, alone) for alone in shards]:
            done.result(DEADLINE_S)
    assert seen.count((True,)) == 50
    assert all(len(together) == 1 for together in seen if True in together)
    assert max(map(len, seen)) <= 2
