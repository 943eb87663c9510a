"""Vocabularies as files: text, JSON, YAML, embeddings, the bundled ones, and every error of reading them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from proxyclip.vocabulary.names import Vocabulary, VocabularyError, bundled_names

SHARED = Path(__file__).parents[3] / "shared"
COUNTS = {
    "voc20": (20, 20),
    "voc21": (21, 46),
    "context59": (59, 59),
    "context60": (60, 60),
    "context459": (459, 459),
    "cityscapes": (19, 19),
    "ade20k": (150, 150),
    "ade847": (847, 847),
    "coco_object": (81, 97),
    "coco_stuff": (171, 171),
}


@pytest.fixture
def pets() -> Vocabulary:
    return Vocabulary.from_names(["sky", ["horse", "pony"], "cat"], name="pets")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write_file(name: str, content: str | bytes) -> Path:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write_file


def rows(count: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


# Text


@pytest.mark.parametrize(
    "text",
    [
        "sky\nhorse; pony\ncat",
        "sky\nhorse; pony\ncat\n\n \n",
        "\ufeffsky\r\nhorse; pony\r\ncat\r\n",
        "sky\rhorse;pony\rcat\r",
        "  sky \n\thorse ;  pony;\ncat; \n",
    ],
)
def test_text_is_read_whatever_wrote_it(text: str, pets: Vocabulary, write: Callable[..., Path]) -> None:
    assert Vocabulary.from_text(text, name="pets") == pets
    assert Vocabulary.from_file(write("pets.txt", text)) == pets
    assert Vocabulary.from_text(write("pets.txt", text), name="pets") == pets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sky\n\ncat", "line 2: the line is empty; write a class there or remove the line"),
        ("\nsky", "line 1: the line is empty"),
        ("", "line 1: the line is empty"),
        ("sky\n;\ncat", "line 2: the line is empty"),
        ("sky\nhorse;; pony", r'line 2: "horse;; pony" has an empty name'),
        ("sky\nhor\tse", r"line 2: the name 'hor\\tse' contains the character '\\t' at position 3; remove it"),
        (
            "sky\nhorse; po\x00ny",
            r"line 2: query 1 of \"horse\" 'po\\x00ny' contains the character '\\x00' at position 2",
        ),
        ("sky\nhorse;pony; Pony", 'line 2: "horse" has the query "Pony" more than once; remove'),
        (
            "dog\ncow\ncow shed\ncat;kitten\nox\nbull\n Cat ;tom",
            r'^line 7: "Cat" is also the name of class 3 \(line 4\); rename one or make it a synonym\.$',
        ),
        ("classes.txt", r'to read the file "classes.txt", call from_file'),
    ],
)
def test_bad_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_text(text)


# JSON and YAML


def test_queries_are_exactly_those_and_synonyms_add_to_the_name(write: Callable[..., Path]) -> None:
    path = write(
        "farm.yaml",
        """
        background: Ground
        classes:
          - {name: ground, queries: [grass, soil], color: [0, 0, 0]}
          - {name: horse, synonyms: [pony], color: [1, 2, 3]}
          - {name: cow, color: [4, 5, 6]}
        """,
    )
    vocabulary = Vocabulary.from_file(path)
    assert vocabulary.name == "farm"
    assert vocabulary.class_names == ("ground", "horse", "cow")
    assert vocabulary.class_queries == (("grass", "soil"), ("horse", "pony"), ("cow",))
    assert vocabulary.background == 0
    assert vocabulary.palette == ((0, 0, 0), (1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize("name", ["pets.json", "pets.yaml", "pets.YML"])
def test_a_plain_list_is_a_vocabulary(name: str, pets: Vocabulary, write: Callable[..., Path]) -> None:
    assert Vocabulary.from_file(write(name, '\ufeff["sky", ["horse", "pony"], "cat"]')) == pets


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"classes": ["a"], "pallette": []},
            r'^unknown key "pallette"\. Did you mean "palette"\?',
        ),
        ({"classes": ["a"], "zzz": 1}, r'unknown key "zzz"\. Keys: name, classes, background, palette'),
        ([{"name": "a", "synonym": ["b"]}], r'class 0: unknown key "synonym"\. Did you mean "synonyms"\?'),
        (
            [{"name": "a", "synonyms": ["b"], "queries": ["c"]}],
            r'class 0: "a" has both "queries" and "synonyms"; keep one',
        ),
        ([{"name": "a", "synonyms": "b"}], r'class 0: "synonyms" of "a" is \'b\'; give a list'),
        ([{"name": "a", "queries": []}], r'class 0: "a" has no queries; give one or more'),
        (["x", {"queries": ["b"]}], r'class 1: .* has no "name"; add it'),
        (["x", []], "class 1: the list is empty; write a name or remove it"),
        (["x", False], r"class 1: the name is False \(bool\); names are text: put it in quotes"),
        (["x", None], r"class 1: the name is None \(NoneType\)"),
        ([["x", 5]], r'class 0: query 1 of "x" is 5 \(int\)'),
        ([[5, "x"]], r"class 0: the name is 5 \(int\)"),
        ([{"name": 5}], r"class 0: the name is 5 \(int\)"),
        ({"name": 5, "classes": ["a"]}, r"the name of the vocabulary is 5 \(int\)"),
        ({"name": "v"}, r"a vocabulary is a list of classes, or a mapping .* this is \{'name': 'v'\}"),
        ("sky", "this is 'sky'"),
        (None, "this is None"),
        ([], "the vocabulary has 0 classes; a vocabulary has 1 to 65535"),
        ({"classes": ["a"], "background": "b"}, r'the background "b" is not a class'),
        ({"classes": ["a"], "background": 1}, "the background is class 1, but the classes are 0 to 0"),
        ({"classes": ["a"], "background": -1}, "the background is class -1, but the classes are 0 to 0"),
        ({"classes": ["a"], "background": True}, "the background is True; give the name or the index"),
        ({"classes": ["a", "b"], "palette": [[0, 0, 0]]}, r"the palette is \[\[0, 0, 0\]\]; give a list of 2 colours"),
        ({"classes": ["a", "b"], "palette": [[0, 0, 0], [0, 0]]}, "give a list of 2 colours"),
        ({"classes": ["a"], "palette": "red"}, "the palette is 'red'; give a list of 1 colours"),
        ({"classes": ["a"], "palette": [[0, 0, 256]]}, "colours are whole numbers from 0 to 255"),
        ({"classes": ["a"], "palette": [[0, 0, -1]]}, "colours are whole numbers from 0 to 255"),
        ({"classes": ["a"], "palette": [[0, 0, 0.5]]}, "colours are whole numbers from 0 to 255"),
        ([{"name": "a", "color": [0, 0, 0]}, "b"], '1 of 2 classes have a "color"; give it to all or none'),
        ({"classes": [{"name": "a", "color": [0, 0, 0]}], "palette": [[0, 0, 0]]}, 'a "palette" and also classes with'),
    ],
)
def test_bad_json_is_refused(data: Any, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_json(data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.json", "{", r"v\.json, line 1: the file is not valid JSON: .*column 2"),
        ("v.yaml", "a: [", r"v\.yaml: the file is not valid YAML: "),
        ("v.csv", "a,b", r'v\.csv: a vocabulary file ends in \.txt, \.json, \.yaml or \.yml, not in "\.csv"'),
        ("v.txt", "sky".encode("utf-16"), r"v\.txt: the file is not UTF-8 text \(byte 0\); save it as UTF-8"),
        ("v.txt", "a\n\nb", r"v\.txt, line 2: the line is empty"),
        ("v.yaml", "- yes", r"v\.yaml, class 0: the name is True \(bool\); names are text: put it in quotes"),
        ("v.json", '["a", "A"]', r'v\.json, class 1: "A" is also the name of class 0; rename one'),
        ("v.txt", "a\nA", r'v\.txt, line 2: "A" is also the name of class 0 \(line 1\); rename one'),
    ],
)
def test_a_bad_file_is_refused_by_name(
    name: str, content: str | bytes, message: str, write: Callable[..., Path]
) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.from_file(write(name, content))


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"none\.json: the file cannot be read: No such file"):
        Vocabulary.from_file(tmp_path / "none.json")


# Embeddings


@pytest.mark.parametrize("tensors", [{"anything": rows(4)}, {"embeddings": rows(4), "scale": rows(1)}], ids=list)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_embeddings_are_read_from_safetensors(
    tensors: dict[str, np.ndarray], dtype: type, pets: Vocabulary, tmp_path: Path
) -> None:
    save_file({name: tensor.astype(dtype) for name, tensor in tensors.items()}, tmp_path / "e.safetensors")
    embeddings = pets.with_embeddings(tmp_path / "e.safetensors").embeddings
    assert embeddings is not None
    assert embeddings.dtype == np.float32
    assert np.allclose(embeddings, rows(4) / np.linalg.norm(rows(4), axis=1, keepdims=True), atol=2e-3)


def test_any_way_to_load_takes_embeddings(write: Callable[..., Path], tmp_path: Path) -> None:
    save_file({"embeddings": rows(46)}, tmp_path / "voc21.safetensors")
    save_file({"embeddings": rows(2)}, tmp_path / "two.safetensors")
    assert Vocabulary.load("voc21", tmp_path / "voc21.safetensors").embeddings is not None
    assert Vocabulary.load(write("two.txt", "a\nb"), tmp_path / "two.safetensors").embeddings is not None


def test_an_unreadable_embeddings_file_is_refused(pets: Vocabulary, tmp_path: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(VocabularyError, match=r"none\.safetensors: the file cannot be read as safetensors"):
        pets.with_embeddings(tmp_path / "none.safetensors")
    with pytest.raises(VocabularyError, match=r"junk\.safetensors: the file cannot be read as safetensors"):
        pets.with_embeddings(write("junk.safetensors", "not a tensor"))
    save_file({"a": rows(4), "b": rows(4)}, tmp_path / "two.safetensors")
    with pytest.raises(VocabularyError, match=r"has the tensors \['a', 'b'\]; save a single tensor, or name one"):
        pets.with_embeddings(tmp_path / "two.safetensors")
    header = b'{"embeddings":{"dtype":"BF16","shape":[4,1],"data_offsets":[0,8]}}'
    half = write("half.safetensors", len(header).to_bytes(8, "little") + header + bytes([128, 63] * 4))
    with pytest.raises(VocabularyError, match=r"half\.safetensors: the file cannot be read .*bfloat16.*save float32"):
        pets.with_embeddings(half)


# Bundled vocabularies and load


def test_the_bundled_vocabularies_have_the_published_sizes() -> None:
    loaded = {name: Vocabulary.from_name(name) for name in bundled_names()}
    assert {name: (v.num_classes, v.num_queries) for name, v in loaded.items()} == COUNTS
    labels = {name: v.class_names[v.background] for name, v in loaded.items() if v.background is not None}
    assert labels == {"voc21": "background", "context60": "background", "coco_object": "background"}
    assert all(v.background in (None, 0) and v.name == name for name, v in loaded.items())


def test_only_coco_object_shares_a_query_between_classes() -> None:
    shared = {name: Vocabulary.from_name(name).shared_queries for name in bundled_names()}
    assert {name: queries for name, queries in shared.items() if queries} == {"coco_object": {"bed": (0, 60)}}


def test_the_bundled_queries_are_the_published_ones() -> None:
    path = SHARED / "facts" / "class_names.json"
    if not path.exists():
        pytest.skip(f"no published class lists at {path}")
    published = json.loads(path.read_text())
    assert {name: [list(q) for q in Vocabulary.from_name(name).class_queries] for name in bundled_names()} == published


def test_a_vocabulary_with_its_own_embeddings_loads() -> None:
    path = SHARED / "real" / "msrc16.json"
    if not path.exists():
        pytest.skip(f"no real vocabulary at {path}")
    vocabulary = Vocabulary.load(path, path.with_name("msrc16.embeddings.safetensors"))
    assert repr(vocabulary) == "Vocabulary('msrc16', 16 classes, 263 queries, 192-d embeddings)"
    assert vocabulary.class_names[1] == "cow"
    assert vocabulary.class_queries[1] == ("ox", "water buffalo", "bison")
    assert vocabulary.shared_queries == {"library": (0, 11)}


def test_load_takes_a_name_or_a_file(write: Callable[..., Path]) -> None:
    assert Vocabulary.load("voc21") == Vocabulary.from_name("voc21")
    assert Vocabulary.load(str(write("two.txt", "a\nb"))).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("VOC12", r'"VOC12" is neither a bundled vocabulary nor a file\. Did you mean voc2.* Bundled: voc20, voc21,'),
        ("zzz/none.txt", r'"zzz/none.txt" is neither .* nor a file\. Bundled: voc20'),
        (".", r'"\." is neither a bundled vocabulary nor a file'),
    ],
)
def test_an_unknown_vocabulary_is_refused_with_what_there_is(spec: str, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.load(spec)


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(VocabularyError, match=r'no bundled vocabulary "ade20"\. Did you mean ade20k'):
        Vocabulary.from_name("ade20")
