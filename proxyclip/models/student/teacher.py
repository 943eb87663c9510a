"""A student as a method of `proxyclip label`: whole images, resized, in one pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from proxyclip.models.decoding.decode import Decoded
from proxyclip.models.student.card import METADATA, Card
from proxyclip.models.student.network import build, prepare
from proxyclip.vocabulary.names import Vocabulary

# The long side of an image is at most this many times its short side when it goes through the network.
_LONGEST = 4


def to_bytes(network: nn.Module, card: Card) -> bytes:
    """A student's file. The same network gives the same bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return save(state, {METADATA: card.to_json()})


def load_network(path: Path) -> tuple[nn.Module, Card]:
    """The student of a file, on the CPU. Raises ValueError if tensors are missing or have another shape."""
    card = Card.read(path)
    network = build(card.architecture, card.encoder, len(card.classes), card.short_side)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{path}: its tensors are not those of {card.architecture} over {card.encoder}: {error}"
        ) from (error)
    return network.eval(), card


def logits_of(network: nn.Module, image: Tensor, card: Card, short_side: int = 0) -> Tensor:
    """uint8 (3, H, W) to logits (C, h, w) of the resized image. short_side: 0 as trained."""
    height, width = image.shape[1:]
    short, long = min(height, width), max(height, width)
    scale = (short_side or card.short_side) / short
    scale = min(scale, _LONGEST * (short_side or card.short_side) / long)
    size = [max(round(side * scale), 1) for side in (height, width)]
    pixels = prepare(image, card.mean, card.std)[None]
    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
    padded = [math.ceil(side / card.multiple) * card.multiple for side in size]
    pixels = F.pad(pixels, (0, padded[1] - size[1], 0, padded[0] - size[0]))
    parameter = next(network.parameters())
    logits: Tensor = network(pixels.to(parameter.dtype))
    return logits[0, :, : size[0], : size[1]].float()


class Teacher:
    """A student that labels. short_side: 0 as trained. Softmax over the classes of the vocabulary."""

    def __init__(
        self, network: nn.Module, card: Card, short_side: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._network = network.to(device, dtype)
        self._card, self._short_side, self._device = card, short_side, device

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """RGB uint8 (H, W, 3) to logits and the image's size."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self._device).permute(2, 0, 1)
        return logits_of(self._network, pixels, self._card, self._short_side), (image.shape[0], image.shape[1])

    @torch.inference_mode()
    def decode(self, encoded: tuple[Tensor, tuple[int, int]], vocabulary: Vocabulary) -> Decoded:
        """The most probable class of each pixel."""
        logits, image_hw = encoded
        rows = torch.tensor(self._card.rows_of(vocabulary), device=logits.device)
        probabilities = logits[rows].softmax(0)
        full = F.interpolate(probabilities[None], size=image_hw, mode="bilinear", align_corners=False)[0]
        best = full.topk(min(2, len(rows)), dim=0)
        confidence = best.values[0].clamp(0, 1)
        margin = confidence if len(rows) == 1 else (confidence - best.values[1]).clamp(0, 1)
        return Decoded(best.indices[0].to(torch.int32), confidence, margin)


def load(
    settings: Mapping[str, Any], files: Mapping[str, Path], *, device: torch.device, dtype: torch.dtype
) -> Teacher:
    """The teacher that `recipes.teachers` names."""
    network, card = load_network(files["student"])
    return Teacher(network, card, settings["short_side"], device, dtype)
