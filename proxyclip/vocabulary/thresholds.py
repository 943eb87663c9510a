"""Thresholds: for each class, the confidence below which its pixels become ignore."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.vocabulary.names import Vocabulary, ignore_label


@dataclass(frozen=True)
class Thresholds:
    """values: one for each class, from 0 (keep every pixel) to above 1 (keep none)."""

    values: tuple[float, ...]

    @classmethod
    def uniform(cls, threshold: float, num_classes: int) -> Thresholds:
        """The same threshold for every class."""
        return cls((threshold,) * num_classes)

    @classmethod
    def from_json(cls, data: bytes, vocabulary: Vocabulary, place: str) -> Thresholds:
        """Read the file that `proxyclip calibrate` writes. Raises ValueError, with `place`, if it does not fit.

        Classes are found by name; each class of the vocabulary must be there.
        """
        try:
            found: Mapping[str, Any] = json.loads(data)["thresholds"]
            values = tuple(float(found[name]) for name in vocabulary.class_names)
        except KeyError as error:
            raise ValueError(f"{place}: there is no {error}; use thresholds of the same vocabulary.") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{place}: this is not a thresholds file of `proxyclip calibrate`: {error}") from error
        if not all(value >= 0 for value in values):  # nor NaN
            raise ValueError(f"{place}: a threshold is negative or no number; give probabilities.")
        return cls(values)

    def apply(self, mask: npt.NDArray[np.unsignedinteger], confidence: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """A mask in which pixels below the threshold of their class are ignore.

        mask: (H, W). confidence: the stored map, one value for a block of pixels, 255 times the probability.
        Returns a new array of the same type.
        """
        ignore = ignore_label(len(self.values))
        limits = np.append(np.asarray(self.values) * 255, 0.0)
        of_pixel = limits[np.minimum(mask, len(self.values))]
        rows = -(-mask.shape[0] // confidence.shape[0])
        columns = -(-mask.shape[1] // confidence.shape[1])
        spread = confidence.repeat(rows, 0)[: mask.shape[0]].repeat(columns, 1)[:, : mask.shape[1]]
        return np.where(spread < of_pixel, mask.dtype.type(ignore), mask)
