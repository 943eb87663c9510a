"""Whatever is killed, whenever: the output ends byte for byte like that of a run that nobody disturbed."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path
from time import monotonic

import pytest
from chaos import KILLS, ChaosCluster, polling_reader, run_and_kill, visible_files
from PIL import Image
from safetensors.torch import save_file
from tiny import random_image

from proxyclip.dataset.clean import clean
from proxyclip.dataset.store import Storage
from proxyclip.dataset.verify import verify
from proxyclip.models.segmenter import Segmenter
from proxyclip.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = ROOT / "proxyclip" / "demo" / "vocabulary.json"
NUM_IMAGES, SHARD_SIZE = 48, 3


@pytest.fixture(scope="module")
def cluster():
    chaos = ChaosCluster(num_nodes=3, cpus_per_node=1)
    yield chaos
    chaos.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for index in range(NUM_IMAGES):
        Image.fromarray(random_image(60 + index % 7, 80 + index % 5, index)).save(folder / f"{index:03d}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """Made once: no run needs CLIP's text tower."""
    vocabulary = Vocabulary.load(VOCABULARY)
    path = tmp_path_factory.mktemp("embeddings") / "text.safetensors"
    save_file({"embeddings": Segmenter.from_preset("demo").embed(vocabulary)}, path)
    return path


def label_command(corpus, output, address, embeddings):
    words = ["--input", corpus, "--output", output, "--preset", "demo", "--shard-size", SHARD_SIZE]
    words += ["--vocabulary", VOCABULARY, "--embeddings", embeddings, "--max-failures", "1"]
    words += ["--short-side", "56", "--crop", "56", "--stride", "56"]
    words += ["--address", address, "--concurrency", 1, "--threads", 1, "--num-gpus", 0]
    return [sys.executable, str(ROOT / "jobs" / "label.py"), *map(str, words)]


@pytest.fixture(scope="module")
def command_for(cluster, corpus, embeddings):
    """The job's command line for an output."""
    return lambda output: label_command(corpus, output, cluster.address, embeddings)


@pytest.fixture(scope="module")
def undisturbed(cluster, command_for, tmp_path_factory):
    """The files of a run that nobody disturbed, and how long it took."""
    output = tmp_path_factory.mktemp("undisturbed")
    started = monotonic()
    code, said = run_and_kill(cluster, command_for(output), "none", 0, random.Random(0))
    assert code == 0, said
    return visible_files(output), monotonic() - started


def disturb(cluster, command_for, undisturbed, output, num_runs):
    """Run and kill until `num_runs` runs are done and the last output is finished."""
    expected, duration_s = undisturbed
    seed = int(os.environ.get("PROXYCLIP_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"PROXYCLIP_CHAOS_SEED={seed}, an undisturbed run takes {duration_s:.1f} s")
    rng = random.Random(seed)
    runs, finished = 0, 0
    kills = dict.fromkeys((*KILLS, "none"), 0)
    while runs < num_runs or finished == 0:
        shutil.rmtree(output, ignore_errors=True)
        with polling_reader(str(output)) as num_seen:
            code = None
            while code != 0:
                kill = rng.choice((*KILLS, "driver"))
                after_s = rng.uniform(0, duration_s)
                code, said = run_and_kill(cluster, command_for(output), kill, after_s, rng)
                runs += 1
                kills[kill] += 1
                print(f"run {runs}: {kill} killed after {after_s:.1f} s, exit code {code}, {num_seen()} shards seen")
                assert code in (0, 1, -9), said
                assert runs < num_runs + 40, said
        finished += 1
        clean(Storage(str(output)), older_than_h=0)
        assert visible_files(output) == expected
        report = verify(Storage(str(output)))
        assert not report.problems
        assert not report.unfinished
    print(f"{runs} runs, {finished} outputs finished, {kills}")


def test_killed_anywhere_and_resumed_gives_the_same_bytes(cluster, command_for, undisturbed, tmp_path):
    disturb(cluster, command_for, undisturbed, tmp_path / "out", num_runs=30)


@pytest.mark.slow
def test_killed_a_hundred_times_and_resumed_gives_the_same_bytes(cluster, command_for, undisturbed, tmp_path):
    disturb(cluster, command_for, undisturbed, tmp_path / "out", num_runs=100)
