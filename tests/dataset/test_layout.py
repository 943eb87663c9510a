"""Keys of an output: what is built is parsed again, and keys of others are not ours."""

from __future__ import annotations

import pytest

from proxyclip.dataset import layout
from proxyclip.dataset.layout import DataKey

SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize("number", [0, 7, 99_999, 1_234_567])
def test_keys_are_parsed_as_they_were_built(number):
    assert layout.parse_plan_key(layout.plan_key(number)) == number
    assert layout.parse_commit_key(layout.commit_key(number)) == number
    assert layout.parse_segment_key(layout.segment_key(number)) == number
    for kind in ("masks", "stats", "failures"):
        assert layout.parse_data_key(layout.data_key(kind, number, SHA)) == DataKey(kind, number, SHA[:12])


def test_keys_are_those_of_the_first_version():
    assert layout.plan_key(3) == "plan/00003.parquet"
    assert layout.commit_key(7) == "commits/000007.json"
    assert layout.segment_key(2) == "commits/segment-00002.parquet"
    assert layout.data_key("masks", 7, SHA) == "masks/000007-0123456789ab.parquet"
    assert layout.preview_key("a/b.jpg") == "preview/a/b.jpg.png"


@pytest.mark.parametrize(
    "key",
    [
        "plan/3.parquet",
        "plan/00003.parquet.tmp",
        "plan/sub/00003.parquet",
        "commits/000007.json\n",
        "commits/.tmp-000007.json",
        "commits/\u0660\u0660\u0660\u0660\u0660\u0667.json",
        "commits/segment-2.parquet",
        "masks/000007-0123456789AB.parquet",
        "masks/000007.parquet",
        "preview/000007-0123456789ab.parquet",
        "run.json",
        "",
    ],
)
def test_keys_of_others_are_not_ours(key):
    parsers = (layout.parse_plan_key, layout.parse_commit_key, layout.parse_segment_key, layout.parse_data_key)
    assert [parse(key) for parse in parsers] == [None] * 4
