"""Thresholds: what a file says, what it refuses, what is applied to stored maps."""

from __future__ import annotations

import json

import numpy as np
import pytest

from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.thresholds import KEEP_NONE, ClassEvidence, Thresholds

WORDS = Vocabulary.from_names(["sky", "tree", "horse"], name="ours")
EVIDENCE = [
    ClassEvidence("class", 9, 5000, 0.7, 0.93, (0.9, 0.95)),
    ClassEvidence("pooled", 2, 300, 0.4, 0.8, (0.2, 1.0)),
    ClassEvidence("none", 0, 0, 0.0),
]


def data(**changes):
    fields = json.loads(Thresholds((0.25, 0.5, KEEP_NONE)).to_json(WORDS, EVIDENCE))
    return json.dumps({**fields, **changes}).encode()


def test_a_file_gives_back_what_was_written():
    assert Thresholds.from_json(data(), WORDS, "file").values == (0.25, 0.5, KEEP_NONE)


def test_a_file_says_what_each_threshold_rests_on():
    fields = json.loads(data())
    assert fields["thresholds"] == {"sky": 0.25, "tree": 0.5, "horse": None}
    assert fields["evidence"]["sky"]["interval"] == [0.9, 0.95]
    assert fields["evidence"]["tree"]["basis"] == "pooled"


def test_classes_are_found_by_name_in_any_order_and_case():
    other = Vocabulary.from_names(["Horse", "sky", "tree"])
    assert Thresholds.from_json(data(), other, "file").values == (KEEP_NONE, 0.25, 0.5)


def test_a_file_may_be_written_by_hand():
    content = b'{"thresholds": {"sky": 0.1, "tree": 0.2, "horse": null}}'
    assert Thresholds.from_json(content, WORDS, "file").values == (0.1, 0.2, KEEP_NONE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (data(thresholds={"sky": 0.1, "tree": 0.2}), "no class 'horse', which vocabulary 'ours' has"),
        (data(thresholds={"sky": 0, "tree": 0, "horse": 0, "cow": 0}), "a class 'cow', which 'ours' has not"),
        (data(thresholds={"sky": -0.1, "tree": 0.2, "horse": 0}), "negative or no number"),
        (data(thresholds={"sky": float("nan"), "tree": 0.2, "horse": 0}), "negative or no number"),
        (data(thresholds={"sky": "high", "tree": 0.2, "horse": 0}), "not a thresholds file"),
        (data(thresholds=[0.1, 0.2, 0.3]), "not a thresholds file"),
        (data(version=99), "version 99"),
        (b"{}", "not a thresholds file"),
        (b"[1]", "not a thresholds file"),
        (b"\xff\x00", "not a thresholds file"),
    ],
)
def test_other_files_are_refused_with_their_name(content, message):
    with pytest.raises(ValueError, match=message) as caught:
        Thresholds.from_json(content, WORDS, "there/thresholds.json")
    assert str(caught.value).startswith("there/thresholds.json: ")


@pytest.mark.parametrize(("num_classes", "dtype", "ignore"), [(3, np.uint8, 255), (300, np.uint16, 65535)])
def test_a_pixel_is_dropped_if_it_is_below_the_threshold_of_its_class(num_classes, dtype, ignore):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, num_classes, (17, 33)).astype(dtype)
    mask[rng.random(mask.shape) < 0.1] = ignore
    confidence = rng.integers(0, 256, mask.shape).astype(np.uint8)
    values = tuple(rng.random(num_classes))
    expected = mask.copy()
    for place in np.ndindex(mask.shape):
        if mask[place] != ignore and confidence[place] < 255 * values[mask[place]]:
            expected[place] = ignore
    found = Thresholds(values).apply(mask, confidence)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_the_ends_keep_all_and_none():
    mask, confidence = np.array([[0, 1]], np.uint8), np.array([[0, 255]], np.uint8)
    np.testing.assert_array_equal(Thresholds.uniform(0, 2).apply(mask, confidence), mask)
    assert (Thresholds.uniform(KEEP_NONE, 2).apply(mask, confidence) == 255).all()


def test_a_map_of_blocks_is_refused():
    with pytest.raises(ValueError, match="spread its blocks over their pixels first"):
        Thresholds.uniform(0.5, 2).apply(np.zeros((12, 12), np.uint8), np.zeros((3, 3), np.uint8))
