"""A corpus, the output of an undisturbed run over it, and runs that are disturbed until they have made the same."""

from __future__ import annotations

import contextlib
import os
import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from chaos import HUNG, KILLS, ChaosCluster, polling_reader, run_and_kill
from PIL import Image
from safetensors.torch import save_file
from tiny import random_image

from proxyclip.dataset.upkeep.clean import clean
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.models.segmenter import Segmenter
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = ROOT / "proxyclip" / "demo" / "vocabulary.json"
NUM_IMAGES, SHARD_SIZE = 48, 3


@dataclass
class Place:
    """Where a corpus lies and outputs go, and what a run leaves that nobody disturbed."""

    root: str
    words: list[str]
    expected: dict[str, bytes]
    duration_s: float

    def command(self, output: str) -> list[str]:
        return [*self.words, "--output", output]

    def new_output(self) -> str:
        return f"{self.root}/{uuid.uuid4().hex}"


def chaos_seed() -> int:
    """PROXYCLIP_CHAOS_SEED, or a new one; printed, to repeat what went wrong."""
    seed = int(os.environ.get("PROXYCLIP_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"PROXYCLIP_CHAOS_SEED={seed}")
    return seed


def new_place(root: str, folder: Path, cluster: ChaosCluster) -> Place:
    """A corpus below `root` and its undisturbed output. folder: for text embeddings, which no run has to make."""
    corpus, drawn, embeddings = Storage(f"{root}/corpus"), folder / "image.png", folder / "text.safetensors"
    save_file({"embeddings": Segmenter.from_preset("demo").embed(Vocabulary.load(VOCABULARY))}, embeddings)
    for index in range(NUM_IMAGES):
        Image.fromarray(random_image(60 + index % 7, 80 + index % 5, index)).save(drawn)
        corpus.write(f"{index:03d}.png", drawn.read_bytes())
    corpus.write("broken.jpg", b"no image")
    words = [ROOT / "jobs" / "label.py", "--input", corpus.uri, "--preset", "demo"]
    words += ["--vocabulary", VOCABULARY, "--embeddings", embeddings, "--shard-size", SHARD_SIZE, "--max-failures", 1]
    words += ["--short-side", 56, "--crop", 56, "--stride", 56, "--threads", 1, "--num-gpus", 0]
    words += ["--address", cluster.address]
    place = Place(root, [str(word) for word in words], {}, 0.0)
    output, started = place.new_output(), monotonic()
    code, said, _ = run_and_kill(cluster, place.command(output), "none", 0, random.Random(0))
    assert code == 0, said
    place.expected, place.duration_s = files(output), monotonic() - started
    return place


def files(output: str) -> dict[str, bytes]:
    storage = Storage(output)
    return {entry.key: storage.read(entry.key) for entry in storage.list()}


def disturb(
    cluster: ChaosCluster,
    place: Place,
    seed: int,
    num_runs: int,
    faults: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> None:
    """Run and kill until something was killed in `num_runs` runs and the last output is finished.

    Each output is held to the undisturbed one. faults: entered for the runs over one output.
    """
    rng = random.Random(seed)
    runs, finished, hung, done = 0, 0, 0, Counter(dict.fromkeys(KILLS, 0))
    while done.total() < num_runs:
        output, code, begun = place.new_output(), None, runs
        with polling_reader(output) as num_seen, faults():
            while code != 0:
                kill, after_s = rng.choice((*KILLS, "driver")), rng.uniform(0, 0.9 * place.duration_s)
                started = monotonic()
                code, said, struck = run_and_kill(cluster, place.command(output), kill, after_s, rng)
                duration_s = monotonic() - started
                what = f"{kill} killed after {after_s:.1f} s" if struck else "ended before anything was killed"
                runs, done[kill] = runs + 1, done[kill] + struck
                print(f"run {runs}: {what}, exit code {code} after {duration_s:.1f} s, {num_seen()} shards seen")
                if not struck and runs == begun + 1:  # the machine is faster than when the undisturbed run was timed
                    place.duration_s = min(place.duration_s, duration_s)
                hung += said.endswith(HUNG)
                assert code in (0, 1, -9), said
                assert hung <= 1 + runs // 30, said
                assert runs < 2 * num_runs + 30, said
        finished += 1
        clean(Storage(output), older_than_h=0)
        assert files(output) == place.expected
        report = verify(Storage(output))
        assert not report.problems
        assert not report.unfinished
    print(f"{runs} runs, {finished} outputs finished, {hung} hung, killed: {dict(done)}")
