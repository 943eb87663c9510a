"""What a student says of itself: the card in the metadata of its file. Read without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from proxyclip.vocabulary.checks import key
from proxyclip.vocabulary.names import Vocabulary

METADATA = "student"
FILE = "student.safetensors"

# Architectures by name: those of segmentation-models-pytorch, and a convolutional head on a vision transformer.
ARCHITECTURES = ("light", "unet", "fpn", "upernet", "segformer", "deeplabv3plus", "dpt")


@dataclass(frozen=True)
class Card:
    """architecture: one of ARCHITECTURES. encoder: a name of timm. classes: in the order of the output channels.

    short_side: images are resized to it. multiple: their sides are padded to it. mean, std: of the encoder's pixels.
    masks: what it learned from. licences: of all that went in. score: mIoU and what it was measured on.
    """

    architecture: str
    encoder: str
    classes: tuple[str, ...]
    short_side: int
    multiple: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parameters: int = 0
    masks: Mapping[str, Any] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    score: Mapping[str, Any] = field(default_factory=dict)

    def rows_of(self, vocabulary: Vocabulary) -> list[int]:
        """The channel of each class of a vocabulary. Raises ValueError if the student does not know one."""
        known = {key(name): index for index, name in enumerate(self.classes)}
        if others := [name for name in vocabulary.class_names if key(name) not in known]:
            raise ValueError(
                f'The student does not know "{others[0]}" of vocabulary {vocabulary.name!r} ({len(others)} such '
                f"classes); it learned {', '.join(self.classes[:8])}{' ...' if len(self.classes) > 8 else ''}. "
                "Use its classes, or some of them, in any order."
            )
        return [known[key(name)] for name in vocabulary.class_names]

    def to_json(self) -> str:
        """For the metadata of a file; the same card gives the same text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1)

    @classmethod
    def read(cls, path: Path) -> Card:
        """The card of a file. Raises ValueError if the file is not a student."""
        try:
            with safe_open(path, framework="numpy") as file:
                text = (file.metadata() or {}).get(METADATA)
            if text is None:
                raise ValueError(f"{path} is not a student: its metadata has no {METADATA!r}.")
            data: dict[str, Any] = json.loads(text)
            names = ("classes", "mean", "std")
            values: dict[str, Any] = {name: tuple(value) if name in names else value for name, value in data.items()}
            card = cls(**values)
        except (SafetensorError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a student of `proxyclip train-student`: {error}") from error
        if card.architecture not in ARCHITECTURES:
            raise ValueError(f"{path}: this version does not know architecture {card.architecture!r}; upgrade it.")
        return card


def check(settings: Mapping[str, Any], files: Mapping[str, Path], vocabulary: Vocabulary) -> None:
    """Raise ValueError unless the student knows the classes of a vocabulary. Reads no tensor."""
    if settings["short_side"] < 0:
        raise ValueError(f"--method-settings: short_side is {settings['short_side']}; give 0 (as trained) or more.")
    Card.read(files["student"]).rows_of(vocabulary)
