"""What a teacher does, and loading one that `recipes.teachers` names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from proxyclip.config import TeacherConfig
from proxyclip.models.decoding.decode import Decoded
from proxyclip.models.decoding.decoder import with_thresholds
from proxyclip.recipes.teachers import teacher_files, teacher_named, warn_of_licence
from proxyclip.vocabulary.names import Vocabulary


class Teacher(Protocol):
    """A network that labels an image: `encode` once per image, `decode` once per vocabulary.

    The job calls both in one thread, in inference mode, for one image at a time. The result must depend on nothing but
    the image, the vocabulary, the settings and the weights. Either may raise MemoryError or torch.OutOfMemoryError:
    then this image fails, and the run goes on. Any other error fails the shard.
    """

    def encode(self, image: np.ndarray) -> Any:
        """RGB uint8 (H, W, 3), the whole image at its own size, to whatever `decode` takes."""

    def decode(self, encoded: Any, vocabulary: Vocabulary) -> Decoded:
        """The labels of the image at its own size, before any threshold: winner, confidence and margin, (H, W).

        The mask of a class is the maximum over its queries; of equal classes the first wins.
        """


def load_teacher(config: TeacherConfig, device: str | torch.device = "cpu") -> Teacher:
    """The teacher of a configuration with its weights, on a device."""
    model = config.model
    method = teacher_named(model.method)
    warn_of_licence(model.method)
    module, _, function = method.load.partition(":")
    files: dict[str, Path] = teacher_files(model)
    load = getattr(import_module(module), function)
    teacher: Teacher = load(dict(model.settings), files, device=torch.device(device), dtype=getattr(torch, model.dtype))
    return teacher


@torch.inference_mode()
def label_image(teacher: Teacher, image: np.ndarray, vocabulary: Vocabulary, config: TeacherConfig) -> Decoded:
    """The labels of an image after the thresholds: `winner` is the mask.

    Raises ValueError if the teacher gives anything but labels of this image.
    """
    decoded = teacher.decode(teacher.encode(image), vocabulary)
    problem = _problem(decoded, (image.shape[0], image.shape[1]), vocabulary.num_classes)
    if problem:
        raise ValueError(f"Method {config.model.method}: {problem}.")
    return with_thresholds(decoded, vocabulary, config.decode)


def _problem(decoded: Decoded, image_hw: tuple[int, int], num_classes: int) -> str | None:
    for name in ("winner", "confidence", "margin"):
        found = tuple(getattr(decoded, name).shape)
        if found != image_hw:
            return f"{name} has shape {found}, but the image has {image_hw}"
    if decoded.winner.dtype != torch.int32:
        return f"winner has type {decoded.winner.dtype} instead of torch.int32"
    if not 0 <= int(decoded.winner.min()) <= int(decoded.winner.max()) < num_classes:
        return f"winner must be a class from 0 to {num_classes - 1}, before any threshold"
    for name in ("confidence", "margin"):
        values = getattr(decoded, name)
        if values.dtype != torch.float32 or not bool(((values >= 0) & (values <= 1)).all()):
            return f"{name} must be torch.float32 from 0 to 1"
    return None
