"""The choice among records: bounded, blind to order, and spread over classes and places."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from proxyclip.pipeline.select.choosing import Candidates, choose
from proxyclip.pipeline.select.records import RECORDS, from_bytes, to_bytes

NAMES = ("sky", "tree", "horse")


def record(number: int, uncertainty: float, classes: dict[int, float], place: list[float] | None = None) -> dict:
    raw = b"" if place is None else np.array(place, "<f2").tobytes()
    return {
        "uri": f"{number:04d}.jpg",
        "uncertainty": uncertainty,
        "disagreement": None,
        "classes": list(classes),
        "shares": list(classes.values()),
        "place": raw,
    }


def table(rows: list[dict]) -> pa.Table:
    return from_bytes(to_bytes(rows))


def chosen(rows: list[dict], count: int, seed: int = 0) -> list[str]:
    candidates = Candidates(len(NAMES), seed)
    candidates.add(table(rows))
    return [each.uri for each in choose(candidates, NAMES, count)]


def test_of_images_alike_the_one_most_in_doubt_comes_first():
    rows = [record(number, 0.1 * number, {0: 1.0}, [1, 0]) for number in range(1, 8)]
    assert chosen(rows, 2) == ["0007.jpg", "0006.jpg"]


def test_of_images_in_equal_doubt_the_one_that_lies_farthest_comes_next():
    angles = (0, 0.1, 0.2, 1.5)
    rows = [record(n, 0.5, {0: 1.0}, [np.cos(angle), np.sin(angle)]) for n, angle in enumerate(angles)]
    found = chosen(rows, 2)
    assert "0003.jpg" in found


@pytest.mark.parametrize("seed", range(3))
def test_a_class_in_a_single_sure_image_is_seen(seed):
    rows = [record(number, 0.9, {0: 0.5, 1: 0.5}) for number in range(30)] + [record(99, 0.01, {2: 0.3, 0: 0.7})]
    assert chosen(rows, 1, seed) == ["0099.jpg"]


def test_the_candidates_are_bounded_and_do_not_depend_on_order_or_grouping():
    rng = np.random.default_rng(0)
    rows = [record(n, float(rng.random()), {int(rng.integers(2)): 1.0}, rng.normal(size=4)) for n in range(600)]
    rows[17]["classes"] = [2]  # the only one of its class, in little doubt
    rows[17]["uncertainty"] = 0.0
    kept = set()
    for order, size in itertools.product((range(600), range(599, -1, -1), rng.permutation(600)), (1, 70, 600)):
        candidates = Candidates(len(NAMES), 3, limit=40)
        for first in range(0, 600, size):
            candidates.add(table([rows[index] for index in list(order)[first : first + size]]))
            assert sum(each.num_rows for each in candidates._tables) <= 2 * 40 + 600 * (size == 600) + size + 60
        kept.add(tuple(candidates.table()["uri"].to_pylist()))
        assert candidates.num_images == 600
    assert len(kept) == 1
    (uris,) = kept
    assert len(uris) <= 40 + 4 * len(NAMES)
    assert "0017.jpg" in uris
    assert max(rows, key=lambda row: row["uncertainty"])["uri"] in uris


def test_the_seed_decides_what_is_drawn_of_a_large_corpus():
    rows = [record(number, 0.5, {0: 1.0}) for number in range(400)]
    kept = []
    for seed in (0, 0, 1):
        candidates = Candidates(len(NAMES), seed, limit=20)
        candidates.add(table(rows))
        kept.append(candidates.table()["uri"].to_pylist())
    assert kept[0] == kept[1] != kept[2]


def test_images_without_any_class_can_be_chosen():
    assert chosen([record(0, 1.0, {}), record(1, 0.2, {0: 1.0})], 2) == ["0001.jpg", "0000.jpg"]


def test_damaged_records_are_refused():
    with pytest.raises(ValueError, match="damaged"):
        from_bytes(b"no parquet")
    assert table([]).schema.names == RECORDS.names
