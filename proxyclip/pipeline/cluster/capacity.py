"""How many actors label, and on what: one on every GPU that the cluster has or gets, or as the user says."""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Literal

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.experimental.internal_kv import _internal_kv_get

from proxyclip.pipeline.cluster.join import cpu_share, is_joined
from proxyclip.pipeline.stages.actor import Actors

logger = logging.getLogger(__name__)

# An autoscaler looks every 5 s at what is asked for.
_AUTOSCALER_ANSWER_S = 30.0


def choose_actors(concurrency: int | Literal["auto"], num_gpus: float | Literal["auto"], address: str | None) -> Actors:
    """The actors for the cluster that this process has joined.

    concurrency "auto": as many as the GPUs bear, growing and shrinking with the cluster; without GPUs one on every
    machine. Raises ValueError if an actor needs more GPUs than this machine has.
    """
    gpus, here = gpus_of_an_actor(num_gpus, address), _num_gpus_here()
    if gpus > here:
        if not is_joined(address):
            raise ValueError(f"--num-gpus is {gpus:g}, but Ray sees {here:g} GPUs on this machine.")
        logger.warning("An actor needs %g GPUs, and the cluster has %g: waiting for more.", gpus, here)
    if gpus and concurrency == "auto":
        at_first = max(int(here / gpus), 1)
        return Actors(at_first, None if is_joined(address) else at_first, gpus, {"num_gpus": gpus})
    number = max(_num_machines(), 1) if concurrency == "auto" else concurrency
    return Actors(number, number, gpus, {"num_gpus": gpus} if gpus else cpu_share(number))


def gpus_of_an_actor(num_gpus: float | Literal["auto"], address: str | None) -> float:
    """What is asked for; "auto": 1 if the cluster has GPUs or starts machines with them, else 0."""
    if num_gpus != "auto":
        return num_gpus
    return 1.0 if _num_gpus_here() >= 1 or (is_joined(address) and _gpus_can_come()) else 0.0


def _num_gpus_here() -> float:
    return float(ray.cluster_resources().get("GPU", 0))


def _num_machines() -> int:
    return sum(1 for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1)


def _gpus_can_come() -> bool:
    """Whether the cluster's autoscaler starts a machine when a task asks for a GPU.

    Ray does not tell which machines a cluster could have, so a task asks for one that this cluster does not have.
    """
    live = _live_types()
    if all(kind.startswith("node_") for kind in live):  # names that Ray gives where nothing starts machines
        return False
    asked = ray.remote(num_gpus=1, max_retries=0)(_nothing).remote()
    deadline = time.monotonic() + _AUTOSCALER_ANSWER_S
    while time.monotonic() < deadline:
        if _num_gpus_here() >= 1 or _starting_types() - live:
            return True
        time.sleep(0.5)
    ray.cancel(asked, force=True)
    return False


def _nothing() -> None: ...


def _live_types() -> set[str]:
    """Types of the cluster's machines, as its autoscaler calls them."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    named = {node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)}
    return named | set((_first_report().get("node_type_mapping") or {}).values())


def _starting_types() -> set[str]:
    """Types of the machines that the autoscaler is starting."""
    status, report = get_cluster_status(ray.get_runtime_context().gcs_address), _first_report()
    launches = {launch.ray_node_type_name for launch in status.pending_launches}
    nodes = {node.ray_node_type_name for node in status.pending_nodes}
    first = {*(report.get("pending_launches") or {}), *(kind for _, kind, _ in report.get("pending_nodes") or ())}
    return launches | nodes | first


def _first_report() -> dict[str, Any]:
    """What Ray's first autoscaler writes, which launchers use. The second answers `get_cluster_status`."""
    written = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    report: dict[str, Any] = (json.loads(written).get("autoscaler_report") if written else None) or {}
    return report
