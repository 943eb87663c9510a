"""Sorting a listing: the same rows as in memory, whatever the order and the number of temporary files."""

import random

import pyarrow as pa
import pytest

from proxyclip.images.inputs import sorting
from proxyclip.images.inputs.sorting import SCHEMA, sorted_listing


def batches(rows, size):
    for start in range(0, len(rows), size):
        columns = zip(*rows[start : start + size], strict=True)
        yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=SCHEMA)


def orders(kind):
    rng = random.Random(7)
    names = [f"{number:05d}" for number in range(3000)]
    if kind == "shuffled":
        rng.shuffle(names)
    elif kind == "falling":
        names.reverse()
    elif kind == "repeated":
        names = rng.choices(names[:50], k=3000)
    elif kind == "text":
        names = ["".join(rng.choices("aZ/. \u00e9\uffee\U0001f40e", k=rng.randrange(1, 4))) for _ in names]
    return [(name, index, f"e{index}") for index, name in enumerate(names)]


@pytest.mark.parametrize("at_once", [2**20, 700, 64])
@pytest.mark.parametrize("kind", ["rising", "falling", "shuffled", "repeated", "text"])
def test_rows_come_in_order_and_the_first_of_a_uri_counts(monkeypatch, kind, at_once):
    monkeypatch.setattr(sorting, "SORTED_AT_ONCE", at_once)
    monkeypatch.setattr(sorting, "_BATCH_ROWS", 50)
    rows = orders(kind)
    first = {}
    for row in rows:
        first.setdefault(row[0], row)
    found = sorted_listing(batches(rows, 61))
    wanted = [first[uri] for uri in sorted(first)]
    for _ in range(2):  # it can be read again
        assert [(ref.uri, ref.size_bytes, ref.etag) for ref in found] == wanted
    assert len(found) == len(wanted)
    assert found.num_repeated == len(rows) - len(wanted)
    assert (found.repeated in first) == (len(rows) > len(wanted))


def test_large_rows_go_to_files_early(monkeypatch):
    written = []
    real = sorting._written
    monkeypatch.setattr(sorting, "SORTED_BYTES", 10_000)
    monkeypatch.setattr(sorting, "_written", lambda found: written.append(real(found)) or written[-1])
    rows = [(f"{'x' * 1000}{number}", 1, "") for number in range(100)]
    assert [ref.uri for ref in sorted_listing(batches(rows, 5))] == sorted(uri for uri, _, _ in rows)
    assert len(written) == 11  # ten of about ten rows each, and all of them merged


def test_no_rows_are_an_empty_listing():
    found = sorted_listing([])
    assert list(found) == []
    assert len(found) == 0
