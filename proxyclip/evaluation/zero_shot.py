"""Zero-shot scores: seen and unseen classes, and their harmonic mean."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from proxyclip.evaluation.confusion import nan_mean
from proxyclip.evaluation.counts import number
from proxyclip.vocabulary.checks import key
from proxyclip.vocabulary.names import Vocabulary

# The unseen classes of CLIP-RC and its predecessors, as indices of the bundled vocabulary of that name.
SPLITS = {
    "voc20": (15, 16, 17, 18, 19),
    "coco_stuff": (19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160),
}


@dataclass(frozen=True)
class ZeroShot:
    """Mean IoU over seen and unseen classes and their harmonic mean, in percent; None if nothing counts."""

    unseen: tuple[str, ...]
    miou_seen: float | None
    miou_unseen: float | None
    harmonic: float | None


def unseen_classes(spec: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The classes that `spec` names: a key of SPLITS, a file with one name a line, or names separated by ";" or ",".

    Raises ValueError for a name that is no class.
    """
    if spec in SPLITS:
        named = Vocabulary.from_name(spec).class_names
        names = [named[index] for index in SPLITS[spec]]
    elif Path(spec).is_file():
        names = Path(spec).read_text("utf-8-sig").splitlines()
    else:
        names = spec.split(";" if ";" in spec else ",")
    names = [name.strip() for name in names if name.strip()]
    of_name = {key(name): index for index, name in enumerate(vocabulary.class_names)}
    unknown = [name for name in names if key(name) not in of_name]
    if unknown or not names:
        raise ValueError(
            f"--unseen {spec}: {', '.join(unknown) or 'there is no name'}: not classes of the output. Give class "
            f"names, a file with one a line, or one of {', '.join(SPLITS)}."
        )
    return tuple(sorted({of_name[key(name)] for name in names}))


def zero_shot(
    iou: npt.NDArray[np.float64], scored: Collection[int], unseen: Collection[int], vocabulary: Vocabulary
) -> ZeroShot:
    """iou: (K,) in percent. One prediction over all classes: what is confused across the two groups counts."""
    seen = nan_mean(iou[[index for index in scored if index not in unseen]])
    new = nan_mean(iou[[index for index in scored if index in unseen]])
    harmonic = 2 * seen * new / (seen + new) if seen + new > 0 else (0.0 if seen + new == 0 else np.nan)
    names = tuple(vocabulary.class_names[index] for index in sorted(unseen))
    return ZeroShot(names, number(seen), number(new), number(harmonic))
