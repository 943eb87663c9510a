"""The same over a store that fails: whatever is killed, whenever, the output ends as if nobody had disturbed it."""

from __future__ import annotations

import contextlib
import uuid

import pytest
from chaos import ChaosCluster
from chaos_place import chaos_seed, disturb, new_place
from fault_proxy import KINDS, fault_proxy

from proxyclip.storage import remote

FAULT_RATE = 0.01  # of each of seven kinds
SEED = 20261124


@pytest.fixture(scope="module")
def store(s3):
    """A proxy before the S3 server that all jobs of this file go through; faultless until told otherwise."""
    with fault_proxy(s3.endpoint, seed=SEED, hold_s=2.0) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patch.setenv("PROXYCLIP_READ_TIMEOUT_S", "1")
        remote.remote.cache_clear()
        yield proxy
        remote.remote.cache_clear()


@pytest.fixture(scope="module")
def cluster(store):
    chaos = ChaosCluster(num_nodes=2, cpus_per_node=1)
    yield chaos
    chaos.shutdown()


@pytest.fixture(scope="module")
def place(store, cluster, s3, tmp_path_factory):
    root = s3.uri(f"bucket/{uuid.uuid4().hex}")
    return new_place(store, root, root, tmp_path_factory.mktemp("drawn"), cluster)


@pytest.fixture
def faults(store):
    """Faults in the requests of a block; at the end of the test there must have been all kinds."""

    @contextlib.contextmanager
    def faulty():
        store.rate = FAULT_RATE
        try:
            yield
        finally:
            store.rate = 0.0

    store.seen.clear()
    store.faults.clear()
    yield faulty
    print(f"{store.faults.total()} faults in {len(store.seen)} requests: {dict(store.faults)}")
    assert set(store.faults) == set(KINDS)


def test_killed_anywhere_and_resumed_gives_the_same_bytes(cluster, place, faults):
    disturb(cluster, place, SEED, num_kills=8, faults=faults)


@pytest.mark.slow
def test_killed_a_hundred_times_and_resumed_gives_the_same_bytes(cluster, place, faults):
    disturb(cluster, place, chaos_seed(), num_kills=100, faults=faults)
