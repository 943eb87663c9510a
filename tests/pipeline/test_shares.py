"""What actors on CPUs reserve."""

from __future__ import annotations

import itertools

import pytest

from proxyclip.pipeline.cluster import join


@pytest.mark.parametrize(
    ("cores", "num_actors", "share"),
    [
        ([2], 1, 1.0),
        ([2], 2, 0.75),
        ([4], 4, 0.87),
        ([1, 1], 2, 0.5),
        ([1, 1, 1], 3, 0.5),
        ([1, 1, 1], 1, 0.5),
        ([2, 64, 64], 66, 1.0),
        ([0.5], 1, 0.01),
    ],
)
def test_wherever_actors_lie_a_reader_and_a_writer_find_room(cores, num_actors, share, monkeypatch):
    """Every way to place the actors leaves half a core on some machine."""
    nodes = [{"Alive": True, "Resources": {"CPU": number}} for number in cores]
    dead = {"Alive": False, "Resources": {"CPU": 8}}
    monkeypatch.setattr(join.ray, "nodes", lambda: [*nodes, dead])
    assert join.cpu_share(num_actors) == {"num_cpus": share}
    if len(cores) * num_actors < 10 and share > 0.01:
        for places in itertools.product(range(len(cores)), repeat=num_actors):
            free = [number - share * places.count(place) for place, number in enumerate(cores)]
            assert min(free) < 0 or max(free) >= 0.5, places
