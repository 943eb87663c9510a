"""Start-up and comparison: each measures this version against itself, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from performance.compare import compare_engines
from performance.startup import measure_startup

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_command_of_the_start_up_ends_as_expected():
    rows = measure_startup(None, rounds=1)
    assert [row["limit, s"] for row in rows].count("") == 1  # only the first shard has no limit
    assert all(len(row["this, s"].split(" / ")) == 3 for row in rows)


@pytest.mark.slow
def test_two_versions_are_measured_by_turns():
    rows = compare_engines(ROOT, "cpu", [], rounds=1, repeats=1)
    assert [row["medians"] for row in rows] == [f"features to labels, {count} queries" for count in (21, 150, 847)]
    assert all(float(row["this / other"]) > 0 for row in rows)
