"""Thresholds: for each class, the confidence below which its pixels become ignore."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from proxyclip.vocabulary.checks import key
from proxyclip.vocabulary.names import Vocabulary, ignore_label

# Raise when a reader of today could not read the files any more.
THRESHOLDS_VERSION = 1

# A threshold that no confidence reaches. Files write it as null.
KEEP_NONE = 2.0

Basis = Literal["class", "pooled", "none", "share"]


@dataclass(frozen=True)
class ClassEvidence:
    """What a class's threshold rests on.

    basis: "class", its own labelled pixels; "pooled", those of all classes, since its own are too few; "none", no
    threshold reaches the precision, so none of its pixels are kept; "share", no labels: the most confident share.
    images, pixels: labelled ones in which the class was predicted and is kept. kept: their share of all its predicted
    pixels. precision: the share of the kept pixels that are right, None without evidence. interval: of the precision.
    """

    basis: Basis
    images: int
    pixels: int
    kept: float
    precision: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Thresholds:
    """values: one for each class, from 0 (keep every pixel) to KEEP_NONE."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(value >= 0 for value in self.values):  # nor NaN
            raise ValueError("a threshold is negative or no number; give probabilities.")

    @classmethod
    def uniform(cls, threshold: float, num_classes: int) -> Thresholds:
        """The same threshold for every class."""
        return cls((threshold,) * num_classes)

    @classmethod
    def from_json(cls, data: bytes, vocabulary: Vocabulary, place: str) -> Thresholds:
        """Read the file that `proxyclip calibrate` writes. Raises ValueError, with `place`, if it does not fit.

        Classes are found by name. The file must have all classes of the vocabulary and no others: with other classes,
        the same pixels have other confidences.
        """
        try:
            fields = json.loads(data)
            version, found = fields.get("version", THRESHOLDS_VERSION), fields["thresholds"]
            values = {key(name): KEEP_NONE if value is None else float(value) for name, value in found.items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{place}: this is not a thresholds file of `proxyclip calibrate` ({type(error).__name__}: {error})."
            ) from error
        if version != THRESHOLDS_VERSION:
            raise ValueError(
                f"{place}: the file has version {version!r}, but this version of proxyclip reads "
                f"{THRESHOLDS_VERSION}; calibrate again."
            )
        names = {key(name): name for name in vocabulary.class_names}
        missing = [name for name in names if name not in values]
        extra = [name for name in values if name not in names]
        if missing or extra:
            which = f"no class {names[missing[0]]!r}" if missing else f"a class {extra[0]!r}"
            but = f"which vocabulary {vocabulary.name!r} has" if missing else f"which {vocabulary.name!r} has not"
            raise ValueError(f"{place}: the file has {which}, {but}; use thresholds of the same vocabulary.")
        try:
            return cls(tuple(values[name] for name in names))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error

    def to_json(
        self, vocabulary: Vocabulary, evidence: Sequence[ClassEvidence], about: Mapping[str, Any] | None = None
    ) -> bytes:
        """The bytes of a thresholds file. evidence: for each class. about: what else the file says, as plain values."""
        names = vocabulary.class_names
        values = {name: None if value >= KEEP_NONE else value for name, value in zip(names, self.values, strict=True)}
        shown = {name: asdict(each) for name, each in zip(names, evidence, strict=True)}
        fields = {"version": THRESHOLDS_VERSION, **(about or {}), "thresholds": values, "evidence": shown}
        return (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode()

    def apply(self, mask: npt.NDArray[np.unsignedinteger], confidence: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """A mask in which pixels below the threshold of their class are ignore.

        mask: (H, W). confidence: (H, W), 255 times the probability; `dataset.masks.spread_confidence` makes it of a
        stored map. Returns a new array of the type of the mask. Raises ValueError if the shapes differ.
        """
        if confidence.shape != mask.shape:
            raise ValueError(
                f"a confidence map of {confidence.shape} does not fit a mask of {mask.shape}; spread its blocks over "
                "their pixels first."
            )
        ignore = ignore_label(len(self.values))
        limits = np.append(np.asarray(self.values) * 255, 0.0)
        of_pixel = limits[np.minimum(mask, len(self.values))]
        return np.where(confidence < of_pixel, mask.dtype.type(ignore), mask)
