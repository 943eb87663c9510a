"""Killed anywhere, over Azure Blob Storage that fails: the output ends as if nobody had."""

from __future__ import annotations

import contextlib
import uuid

import pytest
from chaos import ChaosCluster
from chaos_place import chaos_seed, disturb, new_place
from fault_proxy import KINDS, fault_proxy

from proxyclip.storage import remote

FAULT_RATE = 0.01  # of each of seven kinds
NUM_KILLS = 20  # in ten runs or more


@pytest.fixture(scope="module")
def proxy(azure):
    with (
        fault_proxy(azure.endpoint, seed=0, hold_s=2.0) as proxy,
        azure.clients_at(proxy.url),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PROXYCLIP_READ_TIMEOUT_S", "1")
        remote.remote.cache_clear()
        yield proxy
        remote.remote.cache_clear()


@pytest.fixture(scope="module")
def cluster(proxy):
    chaos = ChaosCluster(num_nodes=2, cpus_per_node=1)
    yield chaos
    chaos.shutdown()


@pytest.fixture(scope="module")
def place(proxy, cluster, azure, tmp_path_factory):
    """The corpus and the outputs lie in the store."""
    root = azure.uri(f"bucket/{uuid.uuid4().hex}")
    return new_place(proxy, root, f"{root}/outputs", tmp_path_factory.mktemp("drawn"), cluster, azure.account)


@pytest.mark.slow
def test_killed_anywhere_over_azure_that_fails_gives_the_same_bytes(cluster, place, proxy):
    @contextlib.contextmanager
    def faults():
        proxy.rate = FAULT_RATE
        try:
            yield
        finally:
            proxy.rate = 0.0

    proxy.seen.clear()
    proxy.faults.clear()
    disturb(cluster, place, chaos_seed(), NUM_KILLS, faults=faults)
    print(f"{proxy.faults.total()} faults in {len(proxy.seen)} requests: {dict(proxy.faults)}")
    assert set(proxy.faults) == set(KINDS)
