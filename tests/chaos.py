"""A cluster of several nodes on this machine, a job on it, and a hand that kills parts of either."""

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
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic

import psutil
import ray.cluster_utils

from proxyclip.dataset.commits import committed, read_commit
from proxyclip.dataset.rows import KINDS
from proxyclip.dataset.shards import read_table
from proxyclip.storage.store import Storage

Kill = str  # "driver", "actor", "worker", "node" or "none"
HUNG = "the job hung, and was killed"
KILLS = ("driver", "actor", "worker", "node")

# A job spends seconds on imports; forty of them fork from one process that has done that.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["proxyclip.pipeline.run"])


class ChaosCluster:
    """A head without work for actors' sake, and nodes that may die; all on loopback."""

    def __init__(self, num_nodes: int, cpus_per_node: float) -> None:
        self._cpus = cpus_per_node
        # Ray's own switch for machines that must not listen to the network.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # A machine with more to do than it can answers late; a node that is dead refuses at once, five times.
        patience = {"health_check_timeout_ms": 60_000, "health_check_period_ms": 1000}
        head = {"num_cpus": cpus_per_node, "include_dashboard": False, "_system_config": patience}
        self._cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._cluster.add_node(num_cpus=cpus_per_node) for _ in range(num_nodes - 1)]
        self.address: str = self._cluster.address

    def kill_node(self, rng: random.Random) -> bool:
        """Kill a node other than the head, with all that runs on it, and put a new one in its place."""
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
        """Kill one actor, or one worker process that is none; False where there is none yet."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())  # of one that just died it is empty
                if title.startswith("ray::") and "Agent" not in title and ("MapWorker" in title) == actor:
                    found.append(process)
        for process in rng.sample(found, len(found)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                return True
        return False

    def shutdown(self) -> None:
        self._cluster.shutdown()


def run_and_kill(
    cluster: ChaosCluster,
    command: Sequence[str],
    kill: Kill,
    after_s: float,
    rng: random.Random,
    ready: Callable[[], bool] = lambda: True,
    timeout_s: float = 180,
) -> tuple[int, str, bool]:
    """Start the job, kill a part of it or of the cluster after a while and when all is ready for it, wait.

    command: a script and its arguments. Returns exit code, what it said, and whether anything was killed; the job may
    have ended before.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said.txt")
        said.touch()  # the job may be killed before it says anything
        job = _FORKS.Process(target=_run, args=(command, dict(os.environ), said))
        job.start()
        deadline, struck, hung = monotonic() + timeout_s, False, ""
        job.join(after_s)
        while job.is_alive() and not (struck := ready() and _strike(cluster, kill, job, rng)):
            job.join(0.05)  # what is to be killed is not there yet
        job.join(max(deadline - monotonic(), 0))
        if job.is_alive():  # Ray itself may hang when nodes die (ray#41258); a restart is the remedy
            job.kill()
            job.join()
            hung = HUNG
        assert job.exitcode is not None
        return job.exitcode, said.read_text() + hung, struck and kill != "none"


def _run(command: Sequence[str], environment: dict[str, str], said: Path) -> None:
    """Be `python *command`, all of whose words go to a file."""
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
    return kill == "none" or cluster.kill_process(rng, actor=kill == "actor")


@contextlib.contextmanager
def polling_reader(output: str) -> Iterator[Callable[[], int]]:
    """Reads every shard as soon as it is committed, all the while; raises what went wrong. Gives how many it read."""
    storage, stop, seen = Storage(output), threading.Event(), set()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.wait(0.2):
                for shard in set(committed(storage)) - seen:
                    commit = read_commit(storage, shard)
                    rows = {kind: read_table(storage, commit, kind).num_rows for kind in KINDS}
                    assert rows["masks"] == commit.labelled
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
