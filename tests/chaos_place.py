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

from chaos import KILLS, ChaosCluster, Kill, Strike, polling_reader, run_job
from fault_proxy import FaultProxy
from labelling import embeddings_of, files
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
NUM_SHARDS, SHARD_SIZE = 16, 3
BROKEN = 20  # the image that cannot be decoded


@dataclass
class Place:
    """A corpus in a store behind a proxy, where outputs go, and what an undisturbed run writes.

    The proxy holds runs: a run cannot end before one of its requests is answered.
    """

    proxy: FaultProxy
    outputs: str
    words: list[str]
    expected: dict[str, bytes]
    duration_s: float
    held: dict[str, Callable[[int], str]]  # the requests that each hold holds, for a shard
    watched: str = ""  # the folder of the output whose shards are watched

    def command(self, output: str) -> list[str]:
        return [*self.words, "--output", output]

    def new_output(self) -> str:
        return f"{self.outputs}/{uuid.uuid4().hex}"

    def hold(self, what: str, shard: int = 0) -> None:
        """Answer some requests only after `release`.

        what: "image" or "commit" of a shard: the shards before it can be committed, this one cannot. "listing" of the
        corpus: a new run waits for it before it plans, a resumed one after it has labelled what was planned.
        """
        self.proxy.held = self.held[what](shard)

    def release(self) -> None:
        self.proxy.held = ""


def chaos_seed() -> int:
    """PROXYCLIP_CHAOS_SEED, or a new one; printed, so that a failure can be repeated."""
    seed = int(os.environ.get("PROXYCLIP_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"PROXYCLIP_CHAOS_SEED={seed}")
    return seed


def new_place(
    proxy: FaultProxy, root: str, outputs: str, folder: Path, cluster: ChaosCluster, account: str = ""
) -> Place:
    """Write a corpus below `root`, behind the proxy, and label it undisturbed.

    folder: for the text embeddings, which no run has to compute. account: what paths of requests begin with.
    """
    corpus, drawn, embeddings = Storage(f"{root}/corpus"), folder / "image.png", embeddings_of(VOCABULARY, folder)
    for index in range(NUM_SHARDS * SHARD_SIZE):
        Image.fromarray(random_image(60 + index % 7, 80 + index % 5, index)).save(drawn)
        corpus.write(image_name(index), b"no image" if index == BROKEN else drawn.read_bytes())
    words = [ROOT / "jobs" / "label.py", "--input", corpus.uri, "--preset", "demo"]
    words += ["--vocabulary", VOCABULARY, "--embeddings", embeddings, "--shard-size", SHARD_SIZE, "--max-failures", 1]
    words += ["--short-side", 56, "--crop", 56, "--stride", 56, "--threads", 1, "--num-gpus", 0, "--concurrency", 1]
    words += ["--address", cluster.address]
    bucket_path = account + corpus.uri.partition("://")[2]
    held = {
        "image": lambda shard: f"GET /{bucket_path}/{image_name(shard * SHARD_SIZE + shard % SHARD_SIZE)}",
        "commit": lambda shard: f"/commits/{shard:06d}.",
        "listing": lambda shard: "corpus/&" if account else "corpus%2F&",  # Azure's client does not encode "/"
    }
    return _undisturbed(Place(proxy, outputs, [str(word) for word in words], {}, 0.0, held), cluster)


def new_relabel_place(place: Place, root: str, folder: Path, cluster: ChaosCluster) -> Place:
    """Label the corpus of a place with features, to an output below `root`, and relabel these undisturbed."""
    source = f"{root}/source"
    ended = run_job(cluster, [*place.command(source), "--keep-features"])
    assert ended.code == 0, ended.said
    vocabulary = folder / "two.txt"
    vocabulary.write_text("grass; lawn\nsomething else; sky; brick")
    embeddings = embeddings_of(vocabulary, folder)
    words = [ROOT / "jobs" / "relabel.py", "--source", source, "--vocabulary", vocabulary, "--embeddings", embeddings]
    words += ["--max-failures", 1, "--concurrency", 2, "--address", cluster.address]
    held = {
        "image": lambda shard: f"source/features/features/{shard:06d}-",
        "commit": lambda shard: f"/commits/{shard:06d}.",
        "listing": lambda shard: "plan%2F&",
    }
    return _undisturbed(Place(place.proxy, place.outputs, [str(word) for word in words], {}, 0.0, held), cluster)


def new_reprocess_place(place: Place, root: str, folder: Path, cluster: ChaosCluster) -> Place:
    """The standing job over the corpus of a place, with two vocabularies in a folder below `root`."""
    vocabularies = Storage(f"{root}/vocabularies")
    for name, text in (("grass", "grass; lawn\nsomething else; sky; brick"), ("food", "tomato; lemon\nno food; sand")):
        vocabularies.write(f"{name}.txt", text.encode())
        embeddings = Segmenter.from_preset("demo").embed(Vocabulary.from_text(text))
        save_file({"embeddings": embeddings}, folder / "embeddings")
        vocabularies.write(f"{name}.safetensors", (folder / "embeddings").read_bytes())
    words = list(place.words[1:])
    for option in ("--vocabulary", "--embeddings"):
        del words[words.index(option) : words.index(option) + 2]
    words = [str(ROOT / "jobs" / "reprocess.py"), *words, "--vocabularies", vocabularies.uri]
    held = {
        "image": lambda shard: place.held["image"](shard) if shard % 2 else f"corpus/features/features/{shard:06d}-",
        "commit": place.held["commit"],
        "listing": place.held["listing"],
    }
    new = Place(place.proxy, place.outputs, words, {}, 0.0, held, "corpus/features")
    return _undisturbed(new, cluster)


def _undisturbed(place: Place, cluster: ChaosCluster) -> Place:
    """The place with the files and the duration of a run that nobody disturbs."""
    output, started = place.new_output(), monotonic()
    ended = run_job(cluster, place.command(output))
    assert ended.code == 0, ended.said
    place.expected, place.duration_s = files_wherever(output), monotonic() - started
    assert sum(name.startswith(f"{place.watched}/commits/".lstrip("/")) for name in place.expected) == NUM_SHARDS
    return place


def files_wherever(output: str) -> dict[str, bytes]:
    """The files of an output; those that name the output's own place do not."""
    return {key: data.replace(output.encode(), b"OUTPUT") for key, data in files(output).items()}


def image_name(index: int) -> str:
    return f"{index:03d}.png"


@dataclass(frozen=True)
class Run:
    """What happens in one run: what holds it ("" for nothing), and what is killed meanwhile.

    A run whose driver survives is then released, and gets over the other kills.
    """

    hold: str
    kills: tuple[Kill, ...]


def draw_runs(rng: random.Random, hold: str) -> list[Run]:
    """The runs over one output, of which the last one finishes. hold: what holds those that label."""
    others = rng.sample(KILLS[1:], 3)
    runs = [Run(hold, (*rng.sample(others, rng.randrange(4)), "driver")) for _ in range(rng.randrange(3))]
    if runs and rng.random() < 0.3:
        runs += [Run("listing", ("driver",)), Run("", ())]
    else:
        runs.append(Run(hold, tuple(others[: rng.randint(1, 3)])))
    return runs if rng.random() < 0.75 else [Run("listing", ("driver",)), *runs]


def draw_strike(
    rng: random.Random, place: Place, run: Run, kill: Kill, shard: int, num_seen: Callable[[], int]
) -> Strike:
    """When to kill: at a random moment, or when some of the shards before the held one are committed."""
    after_s, count, early = rng.uniform(0, place.duration_s), rng.randint(0, shard), rng.random() < 0.5
    if run.hold == "listing":
        return Strike(kill, lambda: place.proxy.waiting > 0)
    return Strike(kill, after_s=after_s) if early else Strike(kill, lambda: num_seen() >= count)


def disturb(
    cluster: ChaosCluster,
    place: Place,
    seed: int,
    num_kills: int,
    faults: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> None:
    """Kill `num_kills` times or more, over as many outputs as it takes; compare each with the undisturbed one.

    Each run is held until all that is to be killed in it has been. faults: entered for the runs over one output.
    """
    rng, kills = random.Random(seed), Counter(dict.fromkeys(KILLS, 0))
    num_runs = num_outputs = hung = 0
    while kills.total() < num_kills:
        output, shard = place.new_output(), rng.randrange(NUM_SHARDS)
        runs = draw_runs(rng, rng.choice(("image", "commit")) if "://" in output else "image")
        code = None
        with polling_reader(f"{output}/{place.watched}".rstrip("/")) as num_seen, faults():
            while code != 0:
                run = runs.pop(0) if runs else Run("", ())
                strikes = [draw_strike(rng, place, run, kill, shard, num_seen) for kill in run.kills]
                if run.hold:
                    place.hold(run.hold, shard)
                # Processes of a run whose driver was killed may live a moment longer, so the hold stays for the next.
                release = None if "driver" in run.kills else place.release
                ended = run_job(cluster, place.command(output), strikes, release, num_runs)
                code, num_runs, hung = ended.code, num_runs + 1, hung + ended.hung
                kills.update(ended.kills)
                what = f"{', '.join(ended.kills) or 'nothing'} killed, held by {run.hold or 'nothing'}"
                print(f"run {num_runs}: {what}, exit code {code} after {ended.duration_s:.1f} s, {num_seen()} shards")
                assert ended.kills or not strikes or "driver" not in run.kills, ended.said
                assert code in (0, 1, -9), ended.said
                assert hung <= 1 + num_runs // 30, ended.said
                assert num_runs < 2 * num_kills + 30, ended.said
        num_outputs += 1
        assert_as_expected(output, place)
    print(f"seed {seed}: {num_runs} runs, {num_outputs} outputs finished, {hung} hung, killed: {dict(kills)}")


def assert_as_expected(output: str, place: Place) -> None:
    """The output verifies, and has the files of the undisturbed one once it is cleaned."""
    runs = [Storage(f"{output}/{key}".removesuffix("/run.json")) for key in place.expected if key.endswith("run.json")]
    for run in runs:
        clean(run, older_than_h=0)
    assert files_wherever(output) == place.expected
    for run in runs:
        report = verify(run)
        assert not report.problems
        assert not report.unfinished or report.feature_shards == NUM_SHARDS
