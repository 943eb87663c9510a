"""Ray: join a cluster or start one, and keep it quiet."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import ray
import ray.data
from ray._private import ray_constants

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def cluster(address: str | None, *, verbose: bool) -> Iterator[None]:
    """Join the cluster at `address` (or RAY_ADDRESS), or start one on loopback that ends with the block.

    A plain `ray.init()` would join any cluster that runs on this machine.
    """
    address = _address(address)
    joined = ray.is_initialized()
    if not joined:
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        with (
            contextlib.nullcontext() if verbose else _without_core_logs(),
            on_loopback() if address == "local" else contextlib.nullcontext(),
        ):
            ray.init(
                address=address,
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.ERROR,
                **local,
            )
        if address == "local" and not ip_address(ray.util.get_node_ip_address()).is_loopback:
            logger.warning("This version of Ray listens on %s, not on loopback.", ray.util.get_node_ip_address())
    try:
        yield
    finally:
        if not joined:
            ray.shutdown()


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """Keep a cluster that is started in this block on 127.0.0.1, with all its ports.

    On macOS and Windows Ray does so by itself. On Linux it takes the machine's public address, even if ray.init is
    given 127.0.0.1, and most of its processes then listen on all addresses.
    """
    kept = getattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    ray_constants.ENABLE_RAY_CLUSTER = False  # RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER; ray read it when it was imported
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = kept


@contextlib.contextmanager
def _without_core_logs() -> Iterator[None]:
    """Keep the logs of Ray's C++ core off this terminal. They stay in the files of Ray's session.

    The core warns of every actor of Ray Data (ray#53727). The variable that stops this makes the core print one line
    when it starts. So stderr is held back while it starts, and written afterwards without that line.
    """
    variable = "RAY_BACKEND_LOG_LEVEL"
    os.environ.setdefault(variable, "fatal")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held:
                if variable.encode() not in line:
                    os.write(2, line)


def configure_data(*, verbose: bool) -> None:
    """Set up Ray Data for tables in which a row is a shard."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # one row a block: shards are neither merged nor cut
    context.execution_options.preserve_order = False
    context.execution_options.verbose_progress = verbose
    context.enable_progress_bars = verbose
    context.enable_operator_progress_bars = verbose
    context.print_on_execution_start = verbose
    # An actor has two shards in hand and one that waits: then more actors would help.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.25
    # A slow shard, a download of weights or a wait for a GPU is not an error.
    context.execution_no_progress_timeout_s = -1
    if not verbose:
        logging.getLogger("ray.data").setLevel(logging.ERROR)


def is_joined(address: str | None) -> bool:
    """Whether the cluster was there before this process, and may grow."""
    return _address(address) != "local"


def cpu_share(num_actors: int) -> dict[str, float]:
    """What each actor on CPUs reserves: as much as leaves some machine half a core, wherever Ray puts the actors.

    Readers and writers need a quarter each: without it actors wait for readers that wait for a core.
    """
    cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    for hundredths in range(100, 1, -1):
        if sum(int(max(number - 0.5, 0) * 100) // hundredths for number in cores) >= num_actors:
            return {"num_cpus": hundredths / 100}
    return {"num_cpus": 0.01}


def _address(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"
