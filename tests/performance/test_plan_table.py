"""The benchmark of plans: every way gives the same plan."""

from __future__ import annotations

from performance.plan import SHUFFLED, SORTED, STREAMED, TEXT, measure_plan


def test_every_way_plans_all_images():
    rows = measure_plan(3000, before=False, folder=None)
    assert [row["plan from"] for row in rows] == ["names alone", STREAMED, SORTED, SHUFFLED, TEXT, "no change"]
    assert [row["shards"] for row in rows] == ["0", *["12"] * 5]
    assert all(float(row["peak MB"].replace(",", "")) > 10 for row in rows)
