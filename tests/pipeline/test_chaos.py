"""Whatever is killed, whenever: the output ends as if nobody had disturbed it."""

from __future__ import annotations

import random

import pytest
from chaos import KILLS, ChaosCluster, polling_reader, run_and_kill
from chaos_place import chaos_seed, disturb, files, new_place

from proxyclip.dataset.upkeep.clean import clean
from proxyclip.storage.store import Storage


@pytest.fixture(scope="module")
def cluster():
    chaos = ChaosCluster(num_nodes=2, cpus_per_node=1)
    yield chaos
    chaos.shutdown()


@pytest.fixture(scope="module")
def place(cluster, tmp_path_factory):
    return new_place(str(tmp_path_factory.mktemp("place")), tmp_path_factory.mktemp("drawn"), cluster)


@pytest.mark.parametrize("kill", KILLS)
def test_one_that_is_killed_halfway_costs_nothing(kill, cluster, place):
    """The driver's death ends the run, which is then resumed; the run itself gets over all others."""
    output, rng = place.new_output(), random.Random(0)
    with polling_reader(output) as num_seen:
        code, said, struck = run_and_kill(cluster, place.command(output), kill, 0, rng, lambda: num_seen() > 2)
    assert struck
    assert code == (-9 if kill == "driver" else 0), said
    if kill == "driver":
        code, said, _ = run_and_kill(cluster, place.command(output), "none", 0, rng)
        assert code == 0, said
    clean(Storage(output), older_than_h=0)
    assert files(output) == place.expected


def test_killed_anywhere_and_resumed_gives_the_same_bytes(cluster, place):
    """With those above and those over S3 thirty."""
    disturb(cluster, place, chaos_seed(), num_runs=18)


@pytest.mark.slow
def test_killed_a_hundred_times_and_resumed_gives_the_same_bytes(cluster, place):
    disturb(cluster, place, chaos_seed(), num_runs=100)
