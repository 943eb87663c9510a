"""What the values in label files mean: which class, or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

# What a pixel of a label is, if it is no class. IGNORED: it is not scored. OUTSIDE: it has no class, but is not ignored
# either: whatever is predicted there is a false alarm.
IGNORED, OUTSIDE = -1, -2
_REFUSED = -3
_MAX_VALUE = 65535


class LabelError(ValueError):
    """A label that cannot be scored. status: the kind of problem, one word."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Coding:
    """Values of label files, each with its class.

    classes: value -> index of the class. ignored, outside: values without a class (see IGNORED, OUTSIDE). Other values
    are refused; hint: what they probably mean.
    """

    classes: Mapping[int, int]
    ignored: frozenset[int] = frozenset()
    outside: frozenset[int] = frozenset()
    hint: str = ""

    @classmethod
    def indices(cls, num_classes: int, ignored: Iterable[int] = (), hint: str = "") -> Coding:
        """Labels whose values are the classes."""
        return cls({index: index for index in range(num_classes)}, frozenset(ignored), hint=hint)

    @classmethod
    def from_one(cls, num_classes: int, ignored: Iterable[int] = (), hint: str = "") -> Coding:
        """Labels in which 0 is ignored and the classes are 1..K: what `reduce_zero_label` reads."""
        return cls({index + 1: index for index in range(num_classes)}, frozenset({0, *ignored}), hint=hint)

    def decode(self, values: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """The class of each pixel, IGNORED or OUTSIDE: the same shape. Raises LabelError for other values."""
        values = np.clip(values, -1, _MAX_VALUE + 1) if values.dtype.itemsize > 2 else values
        decoded = self._table[values]
        refused = decoded == _REFUSED
        if refused.any():
            found = np.unique(values[refused])
            shown = ", ".join(str(value) for value in found[:5]) + (", ..." if len(found) > 5 else "")
            hint = f" {self.hint}" if self.hint else ""
            raise LabelError(
                "unknown_value", f"{int(refused.sum())} pixels have values without a class: {shown}.{hint}"
            )
        return decoded

    @cached_property
    def _table(self) -> npt.NDArray[np.int32]:
        table = np.full(_MAX_VALUE + 3, _REFUSED, np.int32)  # two more, for larger and for negative values
        for value, index in self.classes.items():
            table[value] = index
        table[sorted(self.ignored)] = IGNORED
        table[sorted(self.outside)] = OUTSIDE
        return table
