"""Whatever is killed, whenever, on disk and over a store that fails: the output ends as if nobody had disturbed it."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest
from chaos import HUNG, KILLS, ChaosCluster, polling_reader, run_and_kill
from fault_proxy import fault_proxy
from PIL import Image
from safetensors.torch import save_file
from tiny import random_image

from proxyclip.dataset import remote
from proxyclip.dataset.clean import clean
from proxyclip.dataset.store import Storage
from proxyclip.dataset.verify import verify
from proxyclip.models.segmenter import Segmenter
from proxyclip.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = ROOT / "proxyclip" / "demo" / "vocabulary.json"
NUM_IMAGES, SHARD_SIZE = 48, 3
FAULT_RATE = 0.01  # of each of seven kinds


@pytest.fixture(scope="module")
def seed():
    seed = int(os.environ.get("PROXYCLIP_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"PROXYCLIP_CHAOS_SEED={seed}")
    return seed


@pytest.fixture(scope="module")
def store(s3, seed):
    """A proxy before the S3 server that all jobs of this file go through; faultless until told otherwise."""
    with fault_proxy(s3.endpoint, seed=seed, hold_s=2.0) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patch.setenv("PROXYCLIP_READ_TIMEOUT_S", "1")
        remote.remote.cache_clear()
        yield proxy
        remote.remote.cache_clear()


@pytest.fixture(scope="module")
def cluster(store):
    chaos = ChaosCluster(num_nodes=3, cpus_per_node=1)
    yield chaos
    chaos.shutdown()


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    """Made once: no run needs CLIP's text tower."""
    path = tmp_path_factory.mktemp("embeddings") / "text.safetensors"
    save_file({"embeddings": Segmenter.from_preset("demo").embed(Vocabulary.load(VOCABULARY))}, path)
    return path


@dataclass
class Place:
    """Where a corpus lies and outputs go, and what a run leaves that nobody disturbed."""

    root: str
    words: list[str]
    expected: dict[str, bytes]
    duration_s: float

    def command(self, output):
        return [*self.words, "--output", output]

    def new_output(self):
        return f"{self.root}/{uuid.uuid4().hex}"


@pytest.fixture(scope="module", params=["disk", "s3"])
def place(request, cluster, s3, embeddings, tmp_path_factory):
    root = str(tmp_path_factory.mktemp("place")) if request.param == "disk" else s3.uri(f"bucket/{uuid.uuid4().hex}")
    corpus, drawn = Storage(f"{root}/corpus"), tmp_path_factory.mktemp("drawn") / "image.png"
    for index in range(NUM_IMAGES):
        Image.fromarray(random_image(60 + index % 7, 80 + index % 5, index)).save(drawn)
        corpus.write(f"{index:03d}.png", drawn.read_bytes())
    corpus.write("broken.jpg", b"no image")
    words = [sys.executable, ROOT / "jobs" / "label.py", "--input", corpus.uri, "--preset", "demo"]
    words += ["--vocabulary", VOCABULARY, "--embeddings", embeddings, "--shard-size", SHARD_SIZE, "--max-failures", 1]
    words += ["--short-side", 56, "--crop", 56, "--stride", 56, "--threads", 1, "--num-gpus", 0]
    words += ["--address", cluster.address]
    found = Place(root, [str(word) for word in words], {}, 0.0)
    output, started = found.new_output(), monotonic()
    code, said = run_and_kill(cluster, found.command(output), "none", 0, random.Random(0))
    assert code == 0, said
    found.expected, found.duration_s = files(output), monotonic() - started
    return found


def files(output):
    storage = Storage(output)
    return {entry.key: storage.read(entry.key) for entry in storage.list()}


@contextlib.contextmanager
def faults(store, place):
    """Faults in the requests of a place in the store; says how many there were."""
    store.seen.clear()
    store.faults.clear()
    store.rate = FAULT_RATE if place.root.startswith("s3://") else 0.0
    try:
        yield
    finally:
        store.rate = 0.0
    if place.root.startswith("s3://"):
        count, requests = store.faults.total(), len(store.seen)
        print(f"{count} faults in {requests} requests ({100 * count / requests:.1f} %): {dict(store.faults)}")
        assert count >= 0.05 * requests


def disturb(cluster, store, place, seed, num_runs):
    """Run and kill until `num_runs` runs are done and the last output is finished; hold each to the undisturbed one."""
    print(f"an undisturbed run takes {place.duration_s:.1f} s")
    rng = random.Random(seed)
    runs, finished, hung, done = 0, 0, 0, dict.fromkeys(KILLS, 0)
    while runs < num_runs:
        output, code = place.new_output(), None
        with polling_reader(output) as num_seen, faults(store, place):
            while code != 0:
                kill, after_s = rng.choice((*KILLS, "driver")), rng.uniform(0, place.duration_s)
                code, said = run_and_kill(cluster, place.command(output), kill, after_s, rng)
                runs, done[kill] = runs + 1, done[kill] + 1
                print(f"run {runs}: {kill} killed after {after_s:.1f} s, exit code {code}, {num_seen()} shards seen")
                hung += said.endswith(HUNG)
                assert code in (0, 1, -9), said
                assert hung <= 1 + runs // 30, said
                assert runs < num_runs + 30, said
        finished += 1
        clean(Storage(output), older_than_h=0)
        assert files(output) == place.expected
        report = verify(Storage(output))
        assert not report.problems
        assert not report.unfinished
    print(f"{runs} runs, {finished} outputs finished, {hung} hung, {done}")


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("place", ["disk"], indirect=True)
def test_one_that_is_killed_halfway_costs_nothing(kill, cluster, place):
    """The driver's death ends the run, which is then resumed; the run itself gets over all others."""
    output, rng = place.new_output(), random.Random(0)
    code, said = run_and_kill(cluster, place.command(output), kill, place.duration_s / 2, rng)
    assert code == (-9 if kill == "driver" else 0), said
    if kill == "driver":
        code, said = run_and_kill(cluster, place.command(output), "none", 0, rng)
        assert code == 0, said
    clean(Storage(output), older_than_h=0)
    assert files(output) == place.expected


def test_killed_anywhere_and_resumed_gives_the_same_bytes(cluster, store, place, seed):
    disturb(cluster, store, place, seed, num_runs=22 if place.root.startswith("/") else 8)


@pytest.mark.slow
def test_killed_a_hundred_times_and_resumed_gives_the_same_bytes(cluster, store, place, seed):
    disturb(cluster, store, place, seed, num_runs=100)
