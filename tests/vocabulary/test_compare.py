"""What differs between two vocabularies is said in plain lines, and nothing that changes a mask is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from proxyclip.vocabulary.compare import vocabulary_differences
from proxyclip.vocabulary.names import Vocabulary

PETS = Vocabulary.from_names(["rest", "sky", ["horse", "pony"], "cat"], name="pets", background="rest")


def rows(count: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def pets(*names: Any, background: str | None = "rest") -> Vocabulary:
    return Vocabulary.from_names(names, name="pets", background=background)


@pytest.mark.parametrize(
    ("new", "lines"),
    [
        (pets("rest", "sky", ["horse", "pony"], "cat", "dog"), ['1 class added: "dog"']),
        (pets("rest", "sky", ["horse", "pony"]), ['1 class removed: "cat"']),
        (
            pets("rest", "sky", ["horse", "pony"], "dog", "cow"),
            ['2 classes added: "dog", "cow"', '1 class removed: "cat"'],
        ),
        (
            replace(PETS, class_names=("rest", "sky", "mount", "cat")),
            ['1 class renamed: "horse" is now "mount"'],
        ),
        (
            pets("rest", "Sky", ["horse", "pony"], "cat"),
            ['1 class renamed: "sky" is now "Sky"', '1 class with changed queries: "Sky" (added "Sky"; removed "sky")'],
        ),
        (
            pets("rest", "cat", ["horse", "pony"], "sky"),
            ['2 classes moved to another mask value: "sky" from 1 to 3, "cat" from 3 to 1'],
        ),
        (
            pets("rest", "sky", ["horse", "foal", "mare"], "cat"),
            ['1 class with changed queries: "horse" (added "foal", "mare"; removed "pony")'],
        ),
        (
            replace(PETS, class_queries=(("rest",), ("sky",), ("pony", "horse"), ("cat",))),
            ['1 class with changed queries: "horse" (the same in another order)'],
        ),
        (replace(PETS, background=None), ['background changed: from "rest" to none']),
        (replace(PETS, background="sky"), ['background changed: from "rest" to "sky"']),
        (
            pets("sky", ["horse", "pony"], "cat", "rest"),
            [
                "4 classes moved to another mask value: "
                '"rest" from 0 to 3, "sky" from 1 to 0, "horse" from 2 to 1, "cat" from 3 to 2'
            ],
        ),
        (
            pets("sky", ["horse", "pony"], "cat", background=None),
            [
                '1 class removed: "rest"',
                '3 classes moved to another mask value: "sky" from 1 to 0, "horse" from 2 to 1, "cat" from 3 to 2',
                'background changed: from "rest" to none',
            ],
        ),
        (PETS.with_embeddings(rows(5)), ["text embeddings: the new vocabulary brings its own, the old one does not"]),
    ],
)
def test_each_difference_has_its_line(new: Vocabulary, lines: list[str]) -> None:
    assert vocabulary_differences(new, PETS) == lines


def test_a_background_is_told_where_there_was_none() -> None:
    old = replace(PETS, background=None)
    assert vocabulary_differences(PETS, old) == ['background changed: from none to "rest"']


def test_a_changed_embedding_is_told_by_its_query() -> None:
    embeddings = rows(5)
    other = embeddings.copy()
    other[3] *= -1
    old, new = PETS.with_embeddings(embeddings), PETS.with_embeddings(other)
    assert vocabulary_differences(new, old) == ['text embeddings changed for "pony"']
    wider = PETS.with_embeddings(rows(5, width=6))
    assert vocabulary_differences(wider, old) == ["text embeddings: from 4 to 6 dimensions"]
    assert vocabulary_differences(PETS, old) == [
        "text embeddings: the old vocabulary brings its own, the new one does not"
    ]


def test_embeddings_of_added_classes_are_no_difference_of_their_own() -> None:
    embeddings = rows(6)
    old = PETS.with_embeddings(embeddings[:5])
    new = pets("rest", "sky", ["horse", "pony"], "cat", "dog").with_embeddings(embeddings)
    assert vocabulary_differences(new, old) == ['1 class added: "dog"']


def test_long_lists_are_cut() -> None:
    old = Vocabulary.from_name("ade20k")
    new = Vocabulary.from_names(["one more", *old.class_names])
    added, moved = vocabulary_differences(new, old)
    assert added == '1 class added: "one more"'
    assert moved.startswith('150 classes moved to another mask value: "wall" from 0 to 1, ')
    assert moved.endswith(" and 145 more")
    assert moved.count("from") == 5


@pytest.mark.parametrize("change", [{"name": "other"}, {"palette": ((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3))}])
def test_what_changes_no_mask_is_no_difference(change: dict[str, Any]) -> None:
    assert vocabulary_differences(replace(PETS, **change), PETS) == []


def test_whatever_changes_the_fingerprint_has_a_line() -> None:
    random = np.random.default_rng(0)
    words = np.array(["sky", "Sky", "cat", "horse", "pony", "rest", "cow"])
    vocabularies = [PETS]
    while len(vocabularies) < 40:
        names = random.choice(words, size=random.integers(1, 4), replace=False).tolist()
        if len({name.casefold() for name in names}) < len(names):
            continue
        queries = tuple(tuple(random.choice(words[2:], size=random.integers(1, 3), replace=False)) for _ in names)
        background = None if random.random() < 0.5 else int(random.integers(len(names)))
        made = Vocabulary("random", tuple(names), queries, background)
        vocabularies.append(made if random.random() < 0.5 else made.with_embeddings(rows(made.num_queries, 2)))
    for new in vocabularies:
        for old in vocabularies:
            assert bool(vocabulary_differences(new, old)) == (new.fingerprint != old.fingerprint)
