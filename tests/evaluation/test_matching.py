"""Classes and label values: matched by index, name or map; nothing is guessed."""

from __future__ import annotations

import numpy as np
import pytest

from proxyclip.evaluation.labels.coding import IGNORED, LabelError
from proxyclip.evaluation.labels.matching import by_index, by_map, by_names
from proxyclip.vocabulary.names import Vocabulary

OURS = Vocabulary.from_names(["sky", ["horse", "pony"], "Grass", "water"])


def decoded(matching, *values):
    return matching.coding.decode(np.array([values], np.uint16))[0].tolist()


def test_names_match_whatever_their_case_and_the_rest_is_listed():
    matching = by_names(OURS, Vocabulary.from_names(["pony", "GRASS", "sky", "car"]), None)
    assert decoded(matching, 0, 1, 2, 3, 255) == [IGNORED, 2, 0, IGNORED, IGNORED]
    assert matching.scored == (0, 2)
    assert matching.unmatched_labels == {0: "pony", 3: "car"}
    assert matching.unmatched_classes == ("horse", "water")
    assert matching.hints == ('0 "pony" is a synonym of "horse"; a --map can say so.',)


def test_names_may_count_from_one():
    matching = by_names(OURS, Vocabulary.from_names(["water", "sky"]), None, reduce_zero_label=True)
    assert decoded(matching, 0, 1, 2, 255) == [IGNORED, 3, 0, IGNORED]


def test_no_common_name_is_refused():
    with pytest.raises(ValueError, match=r"None of the 2 names of the labels \(car, bus\) is a class of the output"):
        by_names(OURS, Vocabulary.from_names(["car", "bus"]), None)


def test_without_names_values_are_indices():
    assert decoded(by_index(OURS, None), 0, 3, 255) == [0, 3, IGNORED]
    without_water = by_index(OURS, 3)
    assert decoded(without_water, 0, 3) == [0, IGNORED]
    assert (without_water.scored, without_water.unmatched_classes) == ((0, 1, 2), ("water",))
    assert decoded(by_index(OURS, None, reduce_zero_label=True), 0, 1, 4) == [IGNORED, 0, 3]
    with pytest.raises(LabelError, match="Classes are 0 to 3, and 255 is ignored"):
        decoded(by_index(OURS, None), 4)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.json", '{"12": "pony?", "7": "sky", "8": "sky", "99": null}'),
        ("map.txt", "\ufeff# ours\n12: pony?\n\n7: SKY\n 8 : sky\n99:\n"),
    ],
)
def test_a_map_gives_values_to_classes(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text.replace("pony?", "horse"))
    matching = by_map(OURS, str(path), None)
    assert decoded(matching, 12, 7, 8, 99, 255) == [1, 0, 0, IGNORED, IGNORED]
    assert matching.scored == (0, 1)
    assert matching.unmatched_classes == ("Grass", "water")
    with pytest.raises(LabelError, match=r"values without a class: 5\. The map does not name them"):
        decoded(matching, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1: hors", r"not classes of the output: hors\. Did you mean 'horse'\?"),
        ("1: pony", "not classes of the output: pony"),
        ("1 horse", 'line 1: write "VALUE: NAME"'),
        ("x: horse", "'x' is no label value"),
        ("70000: horse", "'70000' is no label value"),
        ("1: sky\n1: horse", "line 2: value 1 is there twice"),
        ("1:", "maps no value to a class"),
        ("", "maps no value to a class"),
    ],
)
def test_a_map_with_a_mistake_is_refused(tmp_path, text, message):
    path = tmp_path / "map.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        by_map(OURS, str(path), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "give one object"),
        ("{", "is not JSON"),
        ('{"1": 2}', "2 is no name"),
        ('{"1": "sky", "1": "horse"}', "value 1 is there twice"),
    ],
)
def test_a_json_map_with_a_mistake_is_refused(tmp_path, text, message):
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        by_map(OURS, str(path), None)


def test_a_map_and_ignore_may_not_contradict_each_other(tmp_path):
    path = tmp_path / "map.txt"
    path.write_text("255: sky\n0: horse")
    assert decoded(by_map(OURS, str(path), None), 255) == [0]
    with pytest.raises(ValueError, match="--ignore is 0, but --map"):
        by_map(OURS, str(path), 0)
    with pytest.raises(ValueError, match="cannot be read"):
        by_map(OURS, str(tmp_path / "none.txt"), None)
