"""What changes the weights of a trained CLIP-RC. Without torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Literal

Mode = Literal["inductive", "transductive", "fully"]

# Weights of focal, dice and recovery loss in the release, by data set and mode.
LOSS_WEIGHTS: dict[str, dict[str, tuple[float, float, float]]] = {
    "voc": {"inductive": (100, 1, 2), "transductive": (100, 1, 2), "fully": (100, 1, 0)},
    "coco-stuff": {"inductive": (200, 3, 50), "transductive": (200, 3, 50), "fully": (100, 1.5, 1)},
}
PROMPTS = {"voc": 10, "coco-stuff": 100}


@dataclass(frozen=True)
class Quirks:
    """What the release does though one would not expect it.

    frozen_bridge: the bridge tokens, declared as parameters, are not trained. decay_norms: weight decay acts on norms
    and biases too. ignored_are_negatives: pixels without a label count as negatives of every class.
    """

    frozen_bridge: bool = True
    decay_norms: bool = True
    ignored_are_negatives: bool = True


@dataclass(frozen=True)
class TrainSettings:
    """mode: as the release names them. unseen: classes without labels. batch: images of each process.

    weights: of focal, dice and recovery loss. image_px: side of the windows.
    """

    mode: Mode
    classes: tuple[str, ...]
    unseen: tuple[int, ...]
    iterations: int
    batch: int
    weights: tuple[float, float, float]
    image_px: int
    prompts: int
    workers: int = 1
    lr: float = 2e-4
    lr_least: float = 1e-6
    warmup: int = 1500
    weight_decay: float = 0.01
    seed: int = 0
    quirks: Quirks = Quirks()
    inputs: str = ""

    @property
    def seen(self) -> tuple[int, ...]:
        """The classes with labels."""
        return tuple(index for index in range(len(self.classes)) if index not in set(self.unseen))

    def lr_at(self, iteration: int) -> float:
        """The learning rate: falls with power 0.9, and rises linearly over the first iterations."""
        rate = (self.lr - self.lr_least) * (1 - iteration / self.iterations) ** 0.9 + self.lr_least
        if iteration < self.warmup:
            rate *= 1 - (1 - iteration / self.warmup) * (1 - 1e-6)
        return rate

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
