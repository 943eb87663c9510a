"""What a checkpoint of CLIP-RC says of itself, and whether it fits a vocabulary. safetensors are checked without torch.

A file of `ClipRC.to_bytes` holds everything: tensors by the names of `sizes`, the text of each class as
tensor `text`, and the description as metadata. A checkpoint of the release lies in a folder with both beside it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from proxyclip.models.cliprc.sizes import BACKBONE, misfits, sizes_of
from proxyclip.vocabulary.checks import key
from proxyclip.vocabulary.names import Vocabulary

METADATA = "cliprc"
TEXT = "text"

_SHOWN = 5


@dataclass(frozen=True)
class Description:
    """classes: the names of the rows of the text. seen: those of them whose labels it was trained on.

    self_training: trained with pseudo-labels of the other classes too; seen classes then get no offset.
    head_width, quick_gelu, eps: of the image tower, where its tensors do not say it.
    """

    classes: tuple[str, ...]
    seen: tuple[int, ...]
    self_training: bool = False
    head_width: int = 64
    quick_gelu: bool = True
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if not self.classes or len({key(name) for name in self.classes}) < len(self.classes):
            raise ValueError("its classes must be different names, at least one.")
        wrong = [index for index in self.seen if not 0 <= index < len(self.classes)]
        if wrong or len(set(self.seen)) < len(self.seen):
            raise ValueError(f"its seen classes {list(self.seen)} must be different numbers below {len(self.classes)}.")

    @property
    def unseen(self) -> tuple[int, ...]:
        """The classes without labels."""
        return tuple(index for index in range(len(self.classes)) if index not in set(self.seen))

    def rows_of(self, vocabulary: Vocabulary) -> list[int]:
        """The row of the text of each class of a vocabulary. Raises ValueError if it has others."""
        known = {key(name): index for index, name in enumerate(self.classes)}
        others = [name for name in vocabulary.class_names if key(name) not in known]
        if others:
            raise ValueError(
                f"The checkpoint has no text for {_cut(others)} of vocabulary {vocabulary.name!r}; its classes are "
                f"{_cut(self.classes)}. Use its classes, or some of them, in any order."
            )
        return [known[key(name)] for name in vocabulary.class_names]

    def to_json(self) -> str:
        """For the metadata of a file."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes, place: str) -> Description:
        """Raises ValueError, with the place, for anything but a description."""
        try:
            data = json.loads(text)
            if not isinstance(data, dict):
                raise ValueError("it is not a JSON object.")
            unknown = data.keys() - {each.name for each in dataclasses.fields(cls)}
            if unknown:
                raise ValueError(f"{sorted(unknown)[0]!r} is not known.")
            if missing := {"classes", "seen"} - data.keys():
                raise ValueError(f"{sorted(missing)[0]!r} is missing.")
            if not all(isinstance(name, str) for name in data["classes"]):
                raise ValueError("its classes are not names.")
            if not all(type(index) is int for index in data["seen"]):
                raise ValueError("its seen classes are not numbers.")
            return cls(**{**data, "classes": tuple(data["classes"]), "seen": tuple(data["seen"])})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{place}: not a description of a CLIP-RC: {error}") from error


def description_of(files: Mapping[str, Path]) -> Description:
    """The description of a checkpoint. files: as `recipes.teachers` finds them."""
    if "description" in files:
        path = files["description"]
        return Description.from_json(path.read_bytes(), str(path))
    path = files["checkpoint"]
    metadata = _header(path)[1] if path.suffix == ".safetensors" else {}
    if METADATA not in metadata:
        raise ValueError(
            f"{path} does not say which classes it knows. Put a checkpoint of the release into a folder of its own, "
            "with cliprc.json and text.safetensors (docs/cliprc.md), and give the folder."
        )
    return Description.from_json(metadata[METADATA], str(path))


def check(settings: Mapping[str, Any], files: Mapping[str, Path], vocabulary: Vocabulary) -> None:
    """Raise ValueError unless the checkpoint is a CLIP-RC that knows the classes of a vocabulary. Reads no tensor."""
    description_of(files).rows_of(vocabulary)
    path = files["checkpoint"]
    if path.suffix == ".safetensors":
        check_shapes(_header(path)[0], path)
    else:  # a pickle: its names and shapes, without its bytes
        from proxyclip.models.cliprc.checkpoint import read_tensors

        check_shapes({name: tuple(value.shape) for name, value in read_tensors(path).items()}, path)


def check_shapes(shapes: Mapping[str, Sequence[int]], path: Path, *, recovery: bool = False) -> None:
    """Raise ValueError unless these are the tensors of a CLIP-RC. recovery: as in `sizes.misfits`."""
    found = {name: tuple(shape) for name, shape in shapes.items() if name != TEXT}
    try:
        if not any(name.startswith(BACKBONE) for name in found):
            raise ValueError(f"no tensor's name starts with {BACKBONE!r}, so it is not a checkpoint of CLIP-RC")
        sizes_of(found)
        wrong = misfits(found, recovery=recovery)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error
    if wrong:
        raise ValueError(f"{path} does not hold a CLIP-RC: {'; '.join(wrong[:_SHOWN])}{_more(wrong)}.")


def _header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def _cut(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names[:_SHOWN]) + _more(names)


def _more(found: Sequence[str]) -> str:
    return f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
