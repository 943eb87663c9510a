"""A cluster of several nodes on this machine, a job on it, and kills of parts of either."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import runpy
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic

import psutil
import ray.cluster_utils

from proxyclip.dataset.commits import committed, read_commit
from proxyclip.dataset.rows import ALL_KINDS
from proxyclip.dataset.shards import read_table
from proxyclip.storage.store import Storage

Kill = str  # one of KILLS
KILLS = ("driver", "actor", "worker", "node")
DEADLINE_S = 600  # for a run, on any machine; only a run that hangs reaches it
NOBODY_S = 60  # a run whose last shard is held has no actors any more: then nobody is killed

# Ray Data keeps what a killed driver has claimed of the cluster for this long; with its default of three minutes, all
# runs after the first would wait.
os.environ["RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S"] = "2"
os.environ["RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS"] = "1"

# A job spends seconds on imports; all jobs fork from one process that has done that.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["proxyclip.cli", "proxyclip.pipeline.runner", "s3fs"])


class ChaosCluster:
    """A head that never dies, where drivers run, and nodes that may die; all on loopback."""

    def __init__(self, num_nodes: int, cpus_per_node: float) -> None:
        self._cpus = cpus_per_node
        # Ray's own switch for machines that must not listen to the network.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # A busy machine answers late. A dead node is noticed without this: it refuses connections.
        patience = {"health_check_timeout_ms": 60_000, "health_check_period_ms": 1000}
        head = {"num_cpus": cpus_per_node, "include_dashboard": False, "_system_config": patience}
        self._cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._cluster.add_node(num_cpus=cpus_per_node) for _ in range(num_nodes - 1)]
        self.address: str = self._cluster.address

    def kill_node(self, rng: random.Random) -> bool:
        """Kill a node other than the head with all its processes, and add a new one."""
        node = rng.choice(self._nodes)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        family = [raylet, *raylet.children(recursive=True)]
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._nodes.append(self._cluster.add_node(num_cpus=self._cpus, wait=False))
        return True

    def kill_process(self, rng: random.Random, *, actor: bool) -> bool:
        """Kill one actor of the label stage, or one other worker process; False if there is none yet."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())  # empty for one that just died
                if title.startswith("ray::") and "Agent" not in title and ("MapWorker" in title) == actor:
                    found.append(process)
        for process in rng.sample(found, len(found)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                return True
        return False

    def shutdown(self) -> None:
        self._cluster.shutdown()


@dataclass(frozen=True)
class Strike:
    """Kill something `after_s` seconds after `ready` has become true."""

    kill: Kill
    ready: Callable[[], bool] = lambda: True
    after_s: float = 0


@dataclass(frozen=True)
class Ended:
    """How a run ended. kills: those that were carried out. said: its output."""

    code: int
    said: str
    kills: tuple[Kill, ...]
    hung: bool
    duration_s: float


def run_job(
    cluster: ChaosCluster,
    command: Sequence[str],
    strikes: Sequence[Strike] = (),
    release: Callable[[], None] | None = None,
    seed: int = 0,
) -> Ended:
    """Start a job, carry out the strikes one after the other, release what holds it, and wait for its end.

    command: a script and its arguments. A job that is held cannot end before it is released, however fast the machine
    is. A strike is left out if there is nobody to kill for NOBODY_S, or if Ray has given up and the job has ended.
    """
    kills: list[Kill] = []
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said.txt")
        said.touch()  # the job may be killed before it says anything
        job = _FORKS.Process(target=_run, args=(command, dict(os.environ), said))
        started = monotonic()
        deadline = started + DEADLINE_S
        job.start()

        def wait_until(ready: Callable[[], bool], limit_s: float = DEADLINE_S) -> bool:
            until = min(deadline, monotonic() + limit_s)
            while job.is_alive() and monotonic() < until:
                if ready():
                    return True
                job.join(0.05)
            return False

        for strike in strikes:
            if wait_until(strike.ready):
                job.join(strike.after_s)
                if wait_until(lambda kill=strike.kill: _strike(cluster, kill, job, rng), NOBODY_S):
                    kills.append(strike.kill)
        if release is not None:
            release()
        job.join(max(deadline - monotonic(), 0))
        hung = job.is_alive()  # Ray itself may hang when nodes die (ray#41258); a restart is the remedy
        if hung:
            job.kill()
            job.join()
        assert job.exitcode is not None
        text = said.read_text() + hung * "\nThe job hung and was killed."
        return Ended(job.exitcode, text, tuple(kills), hung, monotonic() - started)


def _run(command: Sequence[str], environment: dict[str, str], said: Path) -> None:
    """Run `python *command` in this process; its output goes to a file."""
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(said, os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = list(command)
    runpy.run_path(command[0], run_name="__main__")


def _strike(cluster: ChaosCluster, kill: Kill, driver: BaseProcess, rng: random.Random) -> bool:
    if kill == "driver":
        driver.kill()
        return True
    if kill == "node":
        return cluster.kill_node(rng)
    return cluster.kill_process(rng, actor=kill == "actor")


@contextlib.contextmanager
def polling_reader(output: str) -> Iterator[Callable[[], int]]:
    """Read every shard as soon as it is committed; raise at the end what went wrong. Yields how many were read."""
    storage, stop, seen = Storage(output), threading.Event(), set()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.wait(0.2):
                for shard in set(committed(storage)) - seen:
                    commit = read_commit(storage, shard)
                    rows = {kind: read_table(storage, commit, kind).num_rows for kind in ALL_KINDS}
                    assert rows["masks"] + rows["features"] == commit.labelled
                    assert rows["failures"] == commit.failed
                    seen.add(shard)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield lambda: len(seen)
    finally:
        stop.set()
        thread.join()
        if errors:
            raise errors[0]
