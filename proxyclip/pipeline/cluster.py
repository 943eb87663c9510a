"""Ray: join or start a cluster, and keep it quiet."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
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

    A bare `ray.init()` would attach to whatever cluster runs on this machine.
    """
    address = _address(address)
    joined = ray.is_initialized()
    if not joined:
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        with (
            contextlib.nullcontext() if verbose else _quiet_core(),
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
    """Keep a cluster that is started here on 127.0.0.1, with all its ports.

    On macOS and Windows Ray does so by itself. Elsewhere it takes the address that other machines know, also where
    ray.init is told 127.0.0.1, and then most of its processes listen on all addresses.
    """
    kept = getattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    ray_constants.ENABLE_RAY_CLUSTER = False  # RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, read when ray was imported
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = kept


@contextlib.contextmanager
def _quiet_core() -> Iterator[None]:
    """Keep Ray's C++ core off this terminal; its logs stay in the session's folder.

    It warns of every actor of Ray Data (ray#53727), and while it starts it says that it was told not to.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def configure_data(*, verbose: bool) -> None:
    """Settings of Ray Data for rows that are shards."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # one row a block: shards are neither merged nor cut
    context.execution_options.preserve_order = False
    context.execution_options.verbose_progress = verbose
    context.enable_progress_bars = verbose
    context.enable_operator_progress_bars = verbose
    context.print_on_execution_start = verbose
    # A slow shard, a download of weights or waiting for a GPU is no fault.
    context.execution_no_progress_timeout_s = -1
    if not verbose:
        logging.getLogger("ray.data").setLevel(logging.ERROR)


def default_num_gpus() -> float:
    """One GPU per actor where the cluster has any."""
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def require_gpus(num_gpus: float, address: str | None) -> None:
    """ValueError where an actor needs more GPUs than this machine has; a cluster may still grow, so it only warns."""
    found = ray.cluster_resources().get("GPU", 0)
    if num_gpus > found:
        if _address(address) == "local":
            raise ValueError(f"--num-gpus {num_gpus:g}: this machine has {found:g} GPUs that Ray can see.")
        logger.warning("The cluster has %g GPUs, an actor needs %g: waiting for more.", found, num_gpus)


def _address(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def actor_resources(num_gpus: float, num_actors: int) -> dict[str, float]:
    """What an actor reserves. On CPUs the actors leave room for reading and writing, or nothing would move."""
    if num_gpus:
        return {"num_gpus": num_gpus}
    cores = ray.cluster_resources().get("CPU", 1)
    return {"num_cpus": min(1.0, int(100 * (cores - 0.5) / num_actors) / 100)}
