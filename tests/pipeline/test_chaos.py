"""Whatever is killed, whenever, on a disk and over a store that fails: the output ends as if nobody had."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from pathlib import Path

import pytest
from chaos import KILLS, ChaosCluster, Strike, polling_reader, run_job
from chaos_place import assert_as_expected, chaos_seed, disturb, new_place, new_relabel_place, new_reprocess_place
from fault_proxy import KINDS, fault_proxy

from proxyclip.storage import remote

SEED, S3_SEED = 20261123, 20261124
FAULT_RATE = 0.01  # of each of seven kinds
HELD = 8  # of 16 shards


@pytest.fixture(scope="module")
def proxy(s3):
    """A proxy before the S3 server that all jobs of this file go through; faultless until told otherwise."""
    with fault_proxy(s3.endpoint, seed=S3_SEED, hold_s=2.0) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
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
def place(proxy, cluster, s3, tmp_path_factory):
    """The corpus lies in the store, outputs on a disk."""
    root, outputs = s3.uri(f"bucket/{uuid.uuid4().hex}"), tmp_path_factory.mktemp("outputs")
    return new_place(proxy, root, str(outputs), tmp_path_factory.mktemp("drawn"), cluster)


@pytest.fixture
def s3_place(place, s3):
    """The same, with outputs in the store."""
    return dataclasses.replace(place, outputs=s3.uri(f"bucket/{uuid.uuid4().hex}"))


@pytest.fixture(scope="module")
def relabel_place(place, cluster, s3, tmp_path_factory):
    """The same corpus, labelled with features in the store, whose outputs are relabelled ones."""
    root = s3.uri(f"bucket/{uuid.uuid4().hex}")
    return new_relabel_place(place, root, tmp_path_factory.mktemp("vocabulary"), cluster)


@pytest.fixture(scope="module")
def reprocess_place(place, cluster, s3, tmp_path_factory):
    """The same corpus, whose outputs are those of the standing job."""
    root = s3.uri(f"bucket/{uuid.uuid4().hex}")
    return new_reprocess_place(place, root, tmp_path_factory.mktemp("vocabularies"), cluster)


@pytest.fixture
def faults(proxy):
    """Faults in the requests of a block; at the end of the test there must have been all kinds."""

    @contextlib.contextmanager
    def faulty():
        proxy.rate = FAULT_RATE
        try:
            yield
        finally:
            proxy.rate = 0.0

    proxy.seen.clear()
    proxy.faults.clear()
    yield faulty
    print(f"{proxy.faults.total()} faults in {len(proxy.seen)} requests: {dict(proxy.faults)}")
    assert set(proxy.faults) == set(KINDS)


@pytest.mark.parametrize("kill", KILLS)
def test_one_that_is_killed_halfway_costs_nothing(kill, cluster, place):
    """The driver's death ends the run, which is then resumed; the run itself gets over all others."""
    output = place.new_output()
    place.hold("image", HELD)
    with polling_reader(output) as num_seen:
        strike = Strike(kill, lambda: num_seen() >= HELD)
        ended = run_job(cluster, place.command(output), [strike], None if kill == "driver" else place.release)
    assert ended.kills == (kill,)
    assert ended.code == (-9 if kill == "driver" else 0), ended.said
    if kill == "driver":
        done = {path: path.stat().st_mtime_ns for path in Path(output, "commits").glob("*.json")}
        place.release()
        ended = run_job(cluster, place.command(output))
        assert ended.code == 0, ended.said
        assert {path: path.stat().st_mtime_ns for path in done} == done
    assert_as_expected(output, place)


def test_killed_anywhere_and_resumed_gives_the_same_bytes(cluster, place):
    """With the tests above and the next, thirty kills."""
    disturb(cluster, place, SEED, num_kills=16)


def test_killed_anywhere_over_a_store_that_fails_gives_the_same_bytes(cluster, s3_place, faults):
    disturb(cluster, s3_place, S3_SEED, num_kills=10, faults=faults)


@pytest.mark.slow
def test_relabelling_killed_anywhere_gives_the_same_bytes(cluster, relabel_place):
    disturb(cluster, relabel_place, chaos_seed(), num_kills=20)


@pytest.mark.slow
def test_relabelling_killed_anywhere_over_a_store_that_fails_gives_the_same_bytes(cluster, relabel_place, s3, faults):
    s3_place = dataclasses.replace(relabel_place, outputs=s3.uri(f"bucket/{uuid.uuid4().hex}"))
    disturb(cluster, s3_place, chaos_seed(), num_kills=20, faults=faults)


@pytest.mark.slow
def test_reprocessing_killed_anywhere_gives_the_same_bytes(cluster, reprocess_place):
    disturb(cluster, reprocess_place, chaos_seed(), num_kills=20)


@pytest.mark.slow
def test_reprocessing_killed_anywhere_over_a_store_that_fails_gives_the_same_bytes(
    cluster, reprocess_place, s3, faults
):
    s3_place = dataclasses.replace(reprocess_place, outputs=s3.uri(f"bucket/{uuid.uuid4().hex}"))
    disturb(cluster, s3_place, chaos_seed(), num_kills=20, faults=faults)


@pytest.mark.slow
def test_killed_with_its_own_cluster_and_resumed_gives_the_same_bytes(cluster, place):
    output = place.new_output()
    command = [*place.command(output), "--address", "local"]
    place.hold("image", HELD)
    with polling_reader(output) as num_seen:
        ended = run_job(cluster, command, [Strike("driver", lambda: num_seen() >= HELD)])
    assert ended.code == -9, ended.said
    place.release()
    ended = run_job(cluster, command)
    assert ended.code == 0, ended.said
    assert_as_expected(output, place)


@pytest.mark.slow
def test_killed_a_hundred_times_and_resumed_gives_the_same_bytes(cluster, place):
    disturb(cluster, place, chaos_seed(), num_kills=100)


@pytest.mark.slow
def test_killed_a_hundred_times_over_a_store_that_fails_gives_the_same_bytes(cluster, s3_place, faults):
    disturb(cluster, s3_place, chaos_seed(), num_kills=100, faults=faults)
