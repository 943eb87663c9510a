"""Heads as files: read back, checked, and refused where they do not fit."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest

from proxyclip.vocabulary.heads import Head, HeadError
from proxyclip.vocabulary.names import Vocabulary

ENCODER = {
    "model": {"method": "proxyclip", "clip": "ViT-B-16", "dtype": "float32"},
    "windows": {"stride": 112},
    "weights": {"clip": "aa"},
}


@pytest.fixture
def head():
    rng = np.random.default_rng(0)
    words = Vocabulary.from_names(["sky", ["horse", "pony"], "tree"]).with_embeddings(rng.normal(size=(4, 8)))
    return Head(
        weights=rng.normal(size=(4, 8)).astype(np.float32),
        bias=rng.normal(size=4).astype(np.float32),
        row_class=np.array([0, 1, 1, 2]),
        vocabulary=words,
        evidence=np.array([3.0, 0.01, 2.0], np.float32),
        adapted=np.array([True, False, True]),
        encoder=ENCODER,
        provenance={"source": "s3://bucket/labels", "images": 5, "häus": "ü"},
    )


def test_a_head_is_the_same_after_its_file(head):
    again = Head.from_bytes(head.data)
    assert again.data == head.data
    assert again.fingerprint == head.fingerprint
    assert again.vocabulary == head.vocabulary
    assert again.provenance == head.provenance
    assert again.fallbacks == ("horse",)


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: b"x" * 500])
def test_a_damaged_file_is_refused(head, damage):
    with pytest.raises(HeadError, match="damaged"):
        Head.from_bytes(damage(head.data))


def test_another_version_and_another_file_are_refused(head, monkeypatch):
    from safetensors.numpy import save

    monkeypatch.setattr("proxyclip.vocabulary.heads.HEAD_VERSION", 99)
    newer = dataclasses.replace(head).data
    monkeypatch.undo()
    with pytest.raises(HeadError, match="version 99"):
        Head.from_bytes(newer)
    with pytest.raises(HeadError, match="did not write it"):
        Head.from_bytes(save({"embeddings": np.zeros((2, 2), np.float32)}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bias": np.zeros(3, np.float32)}, "bias has shape"),
        ({"weights": np.full((4, 8), np.nan, np.float32)}, "not finite"),
        ({"row_class": np.array([0, 1, 1, 1])}, "row_class"),
        ({"row_class": np.array([1, 0, 1, 2])}, "row_class"),
        ({"vocabulary": Vocabulary.from_names(["sky", "horse", "tree"])}, "text embeddings"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(head, changes, reason):
    with pytest.raises(HeadError, match=reason):
        dataclasses.replace(head, **changes)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Vocabulary.from_names(["sky", ["horse", "pony"], "bush"]), "other classes"),
        (Vocabulary.from_names(["sky", ["horse", "mare"], "tree"]), "other queries"),
        (Vocabulary.from_names(["sky", ["horse", "pony"], "tree"], background="sky"), "other background"),
    ],
)
def test_another_vocabulary_is_refused_with_the_difference(head, other, reason):
    with pytest.raises(HeadError, match=reason):
        head.refuse_vocabulary(other)


def test_the_same_vocabulary_fits_with_and_without_its_embeddings(head):
    plain = Vocabulary.from_names(["sky", ["horse", "pony"], "tree"], name="mine")
    head.refuse_vocabulary(plain)
    head.refuse_vocabulary(head.vocabulary)
    with pytest.raises(HeadError, match="other text embeddings"):
        head.refuse_vocabulary(plain.with_embeddings(np.eye(4, 8)))


def test_features_of_another_model_are_refused_but_not_those_of_other_windows_or_precision(head):
    near = copy.deepcopy(ENCODER)
    near["windows"]["stride"], near["model"]["dtype"] = 224, "bfloat16"
    head.refuse_encoder(near)
    for part, name in (("model", "method"), ("weights", "clip")):
        far = json.loads(json.dumps(ENCODER))
        far[part][name] = "other"
        with pytest.raises(HeadError, match=name):
            head.refuse_encoder(far)
