"""Head: what stands in for the text embeddings of a vocabulary, learned from a corpus without labels."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.vocabulary.checks import VocabularyError
from proxyclip.vocabulary.names import Vocabulary

# Raise when a reader of today could not use the heads any more.
HEAD_VERSION = 1

_TENSORS = ("weights", "bias", "row_class", "embeddings", "evidence", "adapted")


class HeadError(ValueError):
    """A head that cannot be read, or that does not fit."""


@dataclass(frozen=True, eq=False)
class Head:
    """R rows, one or more for each of K classes. A row's score, `weights @ feature + bias`, replaces a cosine.

    weights: (R, E) float32. bias: (R,) float32. row_class: (R,) int64, ascending. vocabulary: with the text embeddings
    that the head was learned from. evidence: (K,) float32, images that show the class (`models.adaptation`). adapted:
    (K,) bool; False: the class keeps its text embeddings. encoder: what made the features, as in `FeatureRecord`.
    provenance: how the head was learned, as plain values.
    """

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    row_class: npt.NDArray[np.int64]
    vocabulary: Vocabulary
    evidence: npt.NDArray[np.float32]
    adapted: npt.NDArray[np.bool_]
    encoder: dict[str, Any]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        classes = self.vocabulary.num_classes
        if self.vocabulary.embeddings is None:
            raise HeadError("the vocabulary of a head has its text embeddings.")
        rows, dim = len(self.weights), self.vocabulary.embeddings.shape[1]
        shapes = {
            "weights": (rows, dim),
            "bias": (rows,),
            "row_class": (rows,),
            "evidence": (classes,),
            "adapted": (classes,),
        }
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found.shape != shape:
                raise HeadError(f"{name} has shape {found.shape} instead of {shape}.")
            if not np.isfinite(found).all():
                raise HeadError(f"{name} has numbers that are not finite.")
        if not np.array_equal(np.unique(self.row_class), np.arange(classes)) or (np.diff(self.row_class) < 0).any():
            raise HeadError(f"row_class must name each of the {classes} classes, in order.")

    @cached_property
    def data(self) -> bytes:
        """The bytes of the head's file. The same head has the same bytes."""
        from safetensors.numpy import save

        assert self.vocabulary.embeddings is not None
        tensors = {
            "weights": self.weights.astype("<f4"),
            "bias": self.bias.astype("<f4"),
            "row_class": self.row_class.astype("<i8"),
            "embeddings": self.vocabulary.embeddings.astype("<f4"),
            "evidence": self.evidence.astype("<f4"),
            "adapted": self.adapted.astype(np.bool_),
        }
        about = {
            "version": HEAD_VERSION,
            "vocabulary": self.vocabulary.to_json(),
            "encoder": self.encoder,
            "provenance": self.provenance,
        }
        # One entry: safetensors writes several in any order.
        return save(tensors, {"proxyclip.head": json.dumps(about, sort_keys=True, ensure_ascii=False)})

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all of the head."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Names of the classes that keep their text embeddings."""
        return tuple(
            name for name, adapted in zip(self.vocabulary.class_names, self.adapted, strict=True) if not adapted
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Head:
        """Read a head. Raises HeadError if it is damaged, of another version or another file."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            about = json.loads(header["__metadata__"]["proxyclip.head"])
            version = about["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise HeadError("the file is damaged, or `proxyclip adapt` did not write it.") from error
        if version != HEAD_VERSION:
            raise HeadError(f"the head has version {version}, but this version of proxyclip reads {HEAD_VERSION}.")
        try:
            tensors = load(data)
            missing = [name for name in _TENSORS if name not in tensors]
            if missing:
                raise HeadError(f"the file has no {missing[0]}; it is damaged.")
            vocabulary = Vocabulary.from_json(about["vocabulary"]).with_embeddings(tensors.pop("embeddings"))
            return cls(vocabulary=vocabulary, encoder=about["encoder"], provenance=about["provenance"], **tensors)
        except (SafetensorError, VocabularyError, KeyError, TypeError) as error:
            raise HeadError(f"the file is damaged: {error}") from error

    def refuse_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Raise HeadError if the classes, queries, background or given text embeddings are not those of the head."""
        own = self.vocabulary
        for what, mine, other in (
            ("classes", own.class_names, vocabulary.class_names),
            ("queries", own.class_queries, vocabulary.class_queries),
            ("background", own.background, vocabulary.background),
        ):
            if mine != other:
                raise HeadError(
                    f"the head was learned for the vocabulary {own.name!r} with other {what} than {vocabulary.name!r} "
                    "has. Learn one for this vocabulary with `proxyclip adapt`."
                )
        if vocabulary.embeddings is not None and vocabulary.fingerprint != own.fingerprint:
            raise HeadError(
                f"the head was learned with other text embeddings than those given for {vocabulary.name!r}."
            )

    def refuse_encoder(self, encoder: dict[str, Any]) -> None:
        """Raise HeadError if features of another model do not fit the head. Windows and precision may differ."""
        mine, other = (_model(each) for each in (self.encoder, encoder))
        names = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
        if names:
            lines = "".join(f"\n  {name}: the head's {mine.get(name)!r}, here {other.get(name)!r}" for name in names)
            raise HeadError(f"the head was learned from features of another model:{lines}\nUse a head of this model.")


def _model(encoder: dict[str, Any]) -> dict[str, Any]:
    """What decides the space of the features, under dotted names."""
    plain = json.loads(json.dumps(encoder))
    model = {name: value for name, value in plain.get("model", {}).items() if name != "dtype"}
    return {**model, **{f"weights.{part}": sha256 for part, sha256 in plain.get("weights", {}).items()}}
