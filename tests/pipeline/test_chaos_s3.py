"""The same over a store that fails: whatever is killed, whenever, the output ends as if nobody had disturbed it."""

from __future__ import annotations

import contextlib
import uuid

import pytest
from chaos import ChaosCluster
from chaos_place import chaos_seed, disturb, new_place
from fault_proxy import fault_proxy

from proxyclip.storage import remote

FAULT_RATE = 0.01  # of each of seven kinds


@pytest.fixture(scope="module")
def seed():
    return chaos_seed()


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
    chaos = ChaosCluster(num_nodes=2, cpus_per_node=1)
    yield chaos
    chaos.shutdown()


@pytest.fixture(scope="module")
def place(cluster, s3, tmp_path_factory):
    return new_place(s3.uri(f"bucket/{uuid.uuid4().hex}"), tmp_path_factory.mktemp("drawn"), cluster)


@pytest.fixture
def faults(store):
    """Faults in the requests of a block; says how many there were."""

    @contextlib.contextmanager
    def faulty():
        store.seen.clear()
        store.faults.clear()
        store.rate = FAULT_RATE
        try:
            yield
        finally:
            store.rate = 0.0
        count, requests = store.faults.total(), len(store.seen)
        print(f"{count} faults in {requests} requests ({100 * count / requests:.1f} %): {dict(store.faults)}")
        assert count >= 0.05 * requests

    return faulty


def test_killed_anywhere_and_resumed_gives_the_same_bytes(cluster, place, seed, faults):
    disturb(cluster, place, seed, num_runs=8, faults=faults)


@pytest.mark.slow
def test_killed_a_hundred_times_and_resumed_gives_the_same_bytes(cluster, place, seed, faults):
    disturb(cluster, place, seed, num_runs=100, faults=faults)
