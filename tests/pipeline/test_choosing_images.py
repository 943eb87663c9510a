"""The choice among records: bounded, blind to order, and every class in its turn."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from proxyclip.dataset.rows import parquet_bytes
from proxyclip.pipeline.select.choosing import Candidates, choose
from proxyclip.pipeline.select.records import RECORDS, from_bytes, to_bytes

NAMES = ("sky", "tree", "horse")


def record(number: int, doubt: float, **shares: float) -> dict:
    classes = [NAMES.index(name) for name in shares]
    return {"uri": f"{number:04d}.jpg", "doubt": doubt, "classes": classes, "shares": list(shares.values())}


def table(rows: list[dict]) -> pa.Table:
    return from_bytes(to_bytes(rows))


def chosen(rows: list[dict], count: int) -> list[str]:
    candidates = Candidates(len(NAMES), count)
    candidates.add(table(rows))
    return [each.uri for each in itertools.islice(choose(candidates, NAMES), count)]


def test_of_images_with_equal_doubt_the_one_that_shows_most_comes_first():
    assert chosen([record(1, 0.5, sky=0.2), record(2, 0.5, sky=0.9), record(3, 0.5, sky=0.4)], 2) == [
        "0002.jpg",
        "0003.jpg",
    ]


def test_of_images_that_show_as_much_the_surer_one_comes_first():
    assert chosen([record(1, 0.5, sky=1.0), record(2, 0.1, sky=1.0), record(3, 0.9, sky=1.0)], 3) == [
        "0002.jpg",
        "0001.jpg",
        "0003.jpg",
    ]


def test_equal_ones_come_by_name():
    assert chosen([record(number, 0.0, sky=1.0) for number in (5, 3, 4)], 3) == ["0003.jpg", "0004.jpg", "0005.jpg"]


def test_classes_take_turns_the_rarest_first():
    rows = [record(number, 0.5, sky=0.6, tree=0.4) for number in range(30)] + [record(99, 0.9, horse=0.1)]
    candidates = Candidates(len(NAMES), 4)
    candidates.add(table(rows))
    found = list(choose(candidates, NAMES))[:4]
    assert [each.class_name for each in found] == ["horse", "tree", "sky", "tree"]
    assert [each.uri for each in found] == ["0099.jpg", "0000.jpg", "0001.jpg", "0002.jpg"]
    assert found[0].share == pytest.approx(0.1)
    assert found[0].doubt == pytest.approx(0.9)


def test_no_image_comes_twice_and_all_that_show_something_come():
    rows = [record(1, 0.5, sky=0.5, tree=0.5), record(2, 0.5, tree=1.0), record(3, 1.0)]
    assert sorted(chosen(rows, 10)) == ["0001.jpg", "0002.jpg"]


def test_memory_is_bounded_and_nothing_depends_on_order_or_grouping(monkeypatch):
    monkeypatch.setattr("proxyclip.pipeline.select.choosing._BETWEEN_CUTS", 100)
    rng = np.random.default_rng(0)
    rows = [
        record(n, float(rng.random()), **dict(zip(NAMES[:2], rng.dirichlet((1, 1)), strict=True))) for n in range(600)
    ]
    rows[17] |= {"classes": [2], "shares": [0.01]}
    found = set()
    for order, size in itertools.product((range(600), range(599, -1, -1), rng.permutation(600)), (1, 70, 600)):
        candidates = Candidates(len(NAMES), 20)
        for first in range(0, 600, size):
            candidates.add(table([rows[index] for index in list(order)[first : first + size]]))
            held = sum(each.num_rows for each in (candidates._cut, *candidates._new))
            assert held <= 20 * len(NAMES) + 100
        assert candidates.num_images == 600
        found.add(tuple(each.uri for each in itertools.islice(choose(candidates, NAMES), 20)))
    assert len(found) == 1
    assert next(iter(found)) == tuple(chosen(rows, 20))
    assert next(iter(found))[0] == "0017.jpg"


def test_damaged_records_are_refused():
    with pytest.raises(ValueError, match="damaged"):
        from_bytes(b"no parquet")
    with pytest.raises(ValueError, match="other columns"):
        from_bytes(parquet_bytes(pa.table({"uri": ["a"]})))
    assert table([]).schema.names == RECORDS.names
