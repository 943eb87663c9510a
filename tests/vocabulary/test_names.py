"""Vocabularies: what they hold, what changes their fingerprint, and what they refuse."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from proxyclip.vocabulary.names import Vocabulary, VocabularyError, bundled_names


@pytest.fixture
def pets() -> Vocabulary:
    return Vocabulary.from_names(["sky", ["horse", "pony"], "cat"], name="pets")


def rows(count: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


# What a vocabulary holds


def test_queries_of_a_class_are_contiguous_and_in_order(pets: Vocabulary) -> None:
    assert pets.class_names == ("sky", "horse", "cat")
    assert pets.queries == ("sky", "horse", "pony", "cat")
    assert pets.query_class.tolist() == [0, 1, 1, 2]
    assert pets.query_class.dtype == np.int64
    assert (pets.num_classes, pets.num_queries) == (3, 4)
    assert pets.background is None


def test_queries_are_not_altered() -> None:
    names = ["traffic_light", "TV monitor", "yellow lady's slipper", "Straßenbahn", "{}", "木", " x  y "]
    assert Vocabulary.from_names(names).queries == tuple(names)


def test_the_background_is_found_by_name_or_index() -> None:
    assert Vocabulary.from_names(["cat", "Background"], background="background").background == 1
    assert Vocabulary.from_names(["cat", "rest"], background=1).background == 1


def test_a_query_of_two_classes_is_named_with_both() -> None:
    shared = Vocabulary.from_names([["rest", "Bed"], "cat", "bed"]).shared_queries
    assert shared == {"bed": (0, 2)}


def test_one_class_is_enough() -> None:
    assert Vocabulary.from_names(["sky"]).query_class.tolist() == [0]


def test_ten_thousand_classes_take_linear_time() -> None:
    start_s = time.perf_counter()
    vocabulary = Vocabulary.from_names([[f"thing {index}", f"item {index}"] for index in range(10_000)])
    assert vocabulary.query_class[-1] == 9_999
    assert vocabulary.fingerprint
    assert time.perf_counter() - start_s < 20  # comparing all pairs takes longer


def test_colours_are_the_palette_or_all_different() -> None:
    colours = Vocabulary.from_names([str(index) for index in range(1000)]).colours
    assert (colours.shape, colours.dtype) == ((1000, 3), np.uint8)
    assert len(np.unique(colours, axis=0)) == 1000
    palette = [[1, 2, 3], [4, 5, 6]]
    assert Vocabulary.from_json({"classes": ["a", "b"], "palette": palette}).colours.tolist() == palette


def test_it_survives_pickling_and_works_as_a_key(pets: Vocabulary) -> None:
    copy = pickle.loads(pickle.dumps(pets.with_embeddings(rows(4))))
    assert copy == pets.with_embeddings(rows(4))
    assert {copy: 1}[pets.with_embeddings(rows(4))] == 1
    assert copy != pets


def test_its_repr_is_short() -> None:
    vocabulary = Vocabulary.from_name("voc21")
    assert repr(vocabulary) == "Vocabulary('voc21', 21 classes, 46 queries, background 0)"
    assert repr(vocabulary.with_embeddings(rows(46))).endswith("background 0, 4-d embeddings)")


def test_neither_torch_nor_ray_is_imported() -> None:
    code = (
        "import sys; from proxyclip.vocabulary.names import Vocabulary; Vocabulary.load('voc21');"
        "import proxyclip.vocabulary.templates, proxyclip.vocabulary.compare, proxyclip.evaluation.confusion;"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ("sky", "pony", "cat")},
        {"class_names": ("sky", "cat", "horse")},
        {"class_queries": (("sky",), ("horse",), ("pony", "cat"))},
        {"class_queries": (("sky",), ("pony", "horse"), ("cat",))},
        {"class_queries": (("sky",), ("horse", "Pony"), ("cat",))},
        {"background": 0},
        {"background": 1},
        {"embeddings": rows(4)},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_what_changes_a_result(pets: Vocabulary, change: dict[str, Any]) -> None:
    assert replace(pets, **change).fingerprint != pets.fingerprint


def test_the_fingerprint_changes_with_any_embedding(pets: Vocabulary) -> None:
    embeddings = rows(4)
    variants = [embeddings, embeddings[::-1].copy(), embeddings[:, ::-1].copy(), rows(4, seed=1), rows(4, width=5)]
    assert len({pets.with_embeddings(variant).fingerprint for variant in variants}) == len(variants)


@pytest.mark.parametrize("change", [{"name": "other"}, {"palette": ((0, 0, 0), (1, 1, 1), (2, 2, 2))}], ids=str)
def test_the_fingerprint_does_not_change_with_what_changes_no_result(pets: Vocabulary, change: dict[str, Any]) -> None:
    assert replace(pets, **change).fingerprint == pets.fingerprint
    assert replace(pets, **change) != pets


def test_every_field_is_covered_by_the_fingerprint_tests() -> None:
    changing = {"class_names", "class_queries", "background", "embeddings"}
    assert set(Vocabulary.__dataclass_fields__) == changing | {"name", "palette"}


def test_the_fingerprint_is_the_same_in_every_process(pets: Vocabulary) -> None:
    # Written down: runs of last month are resumed with it. Change it and every finished run looks foreign.
    assert pets.fingerprint == "7d71c68d3e44ecf1"
    assert (
        pets.with_embeddings(np.array([[3, 4], [0, 2], [-1, 0], [1, 1]], np.float32)).fingerprint == "a7b3433ebd75f886"
    )


# Round trip


@pytest.mark.parametrize("name", bundled_names())
def test_json_round_trip(name: str) -> None:
    vocabulary = Vocabulary.from_name(name)
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


def test_json_round_trip_keeps_palette_and_leaves_embeddings_out(pets: Vocabulary) -> None:
    coloured = replace(pets, palette=((0, 0, 0), (1, 2, 3), (255, 255, 255)))
    assert Vocabulary.from_json(coloured.with_embeddings(rows(4)).to_json()) == coloured


# Names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["dog", "cat", " Cat "],
            r'class 2: " Cat " is also the name of class 1; rename one or make it a synonym\.',
        ),
        ([["cat", "kitten", "Kitten"]], r'class 0: "cat" has the query "Kitten" more than once; remove'),
        (["dog", " "], "class 1: the name is empty; write a name or remove it"),
        ([["dog", ""]], r'class 0: query 1 of "dog" is empty'),
        (["a\nb"], r"class 0: the name 'a\\nb' contains the character '\\n' at position 1"),
        (["a", "b\x00"], r"class 1: the name 'b\\x00' contains the character '\\x00' at position 1"),
        (["a", "b\u2028c"], "class 1: .* contains the character"),
        (["a", "\ud800"], "class 1: .* contains the character"),
        (["a", 7], r"class 1: the name is 7 \(int\); names are text"),
        ("sky", r'from_names takes a list of names, not the text "sky"; write \["sky"\]'),
        ([str(index) for index in range(65_536)], "the vocabulary has 65536 classes; a vocabulary has 1 to 65535"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_names_are_refused(names: Any, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_names(names)


def test_names_and_queries_must_pair_up() -> None:
    with pytest.raises(VocabularyError, match="2 class names but 1 lists of queries; give one list per class"):
        Vocabulary("v", ("a", "b"), (("a",),))
    with pytest.raises(VocabularyError, match=r'class 0: the queries of "ab" are the text \'ab\'; give a list'):
        Vocabulary("v", ("ab",), ("ab",))  # type: ignore[arg-type]


# Embeddings


def test_embeddings_become_unit_rows_and_stay_so(pets: Vocabulary) -> None:
    embeddings = pets.with_embeddings(rows(4) * 50).embeddings
    assert embeddings is not None
    assert embeddings.dtype == np.float32
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(pets.with_embeddings(embeddings).embeddings, embeddings)
    with pytest.raises(ValueError, match="read-only"):
        embeddings[0] = 0


def test_the_callers_array_is_left_alone(pets: Vocabulary) -> None:
    given = rows(4)
    before = given.copy()
    pets.with_embeddings(given)
    given += 1
    assert np.array_equal(given, before + 1)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (rows(3), "3 embeddings for 4 queries; give one row per query"),
        (rows(4)[0], r"the embeddings have shape \(4,\) and type float32; give .*shape \(queries, dimensions\)"),
        (np.ones((4, 2), int), r"shape \(4, 2\) and type int64; .*"),
        (rows(4) * [[1], [0], [1], [0]], "2 embeddings are zero or not finite, the first for query 1"),
        (rows(4) * [[1], [1], [np.nan], [1]], "1 embeddings are zero or not finite, the first for query 2"),
        (rows(4) * [[np.inf], [1], [1], [1]], "1 embeddings are zero or not finite, the first for query 0"),
        (np.empty((4, 0), np.float32), "4 embeddings are zero"),
    ],
)
def test_bad_embeddings_are_refused(embeddings: np.ndarray, message: str, pets: Vocabulary, tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=message):
        pets.with_embeddings(embeddings)
    save_file({"embeddings": embeddings}, tmp_path / "bad.safetensors")
    with pytest.raises(VocabularyError, match=rf"bad\.safetensors: .*{message}"):
        pets.with_embeddings(tmp_path / "bad.safetensors")
