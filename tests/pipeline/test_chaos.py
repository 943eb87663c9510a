"""Whatever is killed, whenever, on a disk and over a store that fails: the output ends as if nobody had."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from pathlib import Path

import pytest
from chaos import ChaosCluster, Strike, polling_reader, run_job
from chaos_place import assert_as_expected, chaos_seed, disturb, new_place, new_relabel_place, new_reprocess_place
from fault_proxy import KINDS, fault_proxy

from proxyclip.storage import remote

# Chosen for few runs: with many kills in each, new ones and resumed ones, held where they list and where they label.
SEED, S3_SEED = 20262849, 20261124
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


def test_a_driver_that_is_killed_halfway_costs_nothing(cluster, place):
    """Its death ends the run. The next run leaves what is done as it is."""
    output = place.new_output()
    place.hold("image", HELD)
    with polling_reader(output) as num_seen:
        strikes = [Strike(kill, lambda: num_seen() >= HELD) for kill in ("worker", "driver")]
        ended = run_job(cluster, place.command(output), strikes)
    assert (ended.kills, ended.code) == (("worker", "driver"), -9), ended.said
    done = {path: path.stat().st_mtime_ns for path in Path(output, "commits").glob("*.json")}
    place.release()
    ended = run_job(cluster, place.command(output))
    assert ended.code == 0, ended.said
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert_as_expected(output, place)


def test_a_run_gets_over_all_that_is_killed_halfway_but_its_driver(cluster, place):
    output, kills = place.new_output(), ("actor", "worker", "node", "worker")
    place.hold("image", HELD)
    with polling_reader(output) as num_seen:
        strikes = [Strike(kill, lambda: num_seen() >= HELD) for kill in kills]
        ended = run_job(cluster, place.command(output), strikes, place.release)
    assert (ended.kills, ended.code) == (kills, 0), ended.said
    assert_as_expected(output, place)


def test_killed_anywhere_and_resumed_gives_the_same_bytes(cluster, place):
    """With the tests above and the next, thirty kills."""
    disturb(cluster, place, SEED, num_kills=14)


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
