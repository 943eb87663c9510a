"""CLIP-RC in the job: windows through the encoder, text through the head, probabilities averaged over windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.config import WindowConfig
from proxyclip.images.sizes import resize_image
from proxyclip.models.cliprc.checkpoint import ClipRC, load_cliprc
from proxyclip.models.cliprc.encoder import MEAN, STD, Tokens
from proxyclip.models.decoding.decode import Decoded
from proxyclip.models.kernels.of_device import network_kernels
from proxyclip.models.memory import BatchSize
from proxyclip.models.pixels import normalise, pixels_on
from proxyclip.models.windows import WindowPlan, cut_windows, plan_windows
from proxyclip.vocabulary.names import Vocabulary

# Windows that go through the networks together. On a CPU more are not faster, and the last bits would depend on it.
WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 8}

# Stride of the release, for the windows of the release.
_STRIDE, _CROP = 426, 512

# An image that is longer than this, in short sides, is made smaller. The release has no limit.
_LONGEST = 16

# Probabilities held at once, of some classes for all pixels of an image.
_PROBABILITIES = 2**23


@dataclass(frozen=True)
class Settings:
    """How images are cut, in pixels; 0: as the checkpoint was trained. seen_offset: taken from seen classes."""

    short_side: int = 0
    crop: int = 0
    stride: int = 0
    seen_offset: float = 0.1

    def windows(self, image_px: int) -> WindowConfig:
        """The windows of a network that was trained on a side of `image_px` pixels."""
        crop = self.crop or image_px
        short_side = self.short_side or crop
        stride = self.stride or max(round(crop * _STRIDE / _CROP), 1)
        return WindowConfig(short_side, _LONGEST * short_side, crop, min(stride, crop), pad_multiple=1)


@dataclass(frozen=True)
class Encoded:
    """The tokens of all windows of an image, row by row, and where the windows lie."""

    tokens: Tokens
    plan: WindowPlan
    window_hw: tuple[int, int]


class Teacher:
    """A `Teacher` with the networks of CLIP-RC. dtype: of the image encoder; the head always computes in float32."""

    def __init__(
        self,
        model: ClipRC,
        settings: Settings = Settings(),
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        windows_at_once: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._networks = model.networks.to(self.device).eval()
        self._text, self._description = model.text.to(self.device), model.description
        self._offset = settings.seen_offset
        self._windows = settings.windows(model.networks.sizes.image_px)
        self._dtype = dtype
        self._kernels = network_kernels(self.device, dtype)
        at_once = windows_at_once or WINDOWS_AT_ONCE.get(self.device.type, WINDOWS_AT_ONCE["cuda"])
        self._at_once = BatchSize("windows", at_once)

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> Encoded:
        """The tokens of every window of an image, RGB uint8 (H, W, 3)."""
        plan = self._plan((image.shape[0], image.shape[1]))
        resized = resize_image(image, (plan.y.resized, plan.x.resized))
        pixels = normalise(pixels_on(self.device, resized)[None].float(), MEAN, STD)[0]
        windows = cut_windows(pixels, plan, torch.zeros(3, device=self.device))
        return Encoded(self._at_once.fit(lambda size: self._encode(windows, size)), plan, plan.padded_hw)

    def _plan(self, image_hw: tuple[int, int]) -> WindowPlan:
        patch = self._networks.sizes.patch
        plan = plan_windows(image_hw, self._windows)
        if min(plan.y.resized, plan.x.resized) < patch:  # longer than the limit allows: at least a patch is needed
            smallest = WindowConfig(patch, 2**31, self._windows.crop, self._windows.stride, pad_multiple=1)
            plan = plan_windows(image_hw, smallest)
        return plan

    def _encode(self, windows: Tensor, at_once: int) -> Tokens:
        found = []
        with self._kernels, torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            for part in windows.split(at_once):
                found.append(self._networks.encoder(part))
        return Tokens(*(torch.cat([getattr(each, name) for each in found]) for name in ("cls", "patches", "regions")))

    @torch.inference_mode()
    def decode(self, encoded: Encoded, vocabulary: Vocabulary) -> Decoded:
        """The class with the highest score wins. Its score, if it is positive, is the confidence."""
        ranking: _Ranking | None = None
        for index, score in enumerate(self.scores(encoded, vocabulary)):
            ranking = ranking or _Ranking(score)
            ranking.add(index, score)
        assert ranking is not None, "a vocabulary has a class"
        return ranking.decoded()

    @torch.inference_mode()
    def scores(self, encoded: Encoded, vocabulary: Vocabulary) -> Iterator[Tensor]:
        """A map (H, W) for each class: its probability by itself, the mean over windows. Seen classes lose the offset.

        Without unseen classes in the vocabulary nobody loses it. Raises ValueError for classes without text.
        """
        rows = self._description.rows_of(vocabulary)
        text = self._text[rows]
        seen = set(self._description.seen)
        shifted = not self._description.self_training and not seen.issuperset(rows)
        offsets = [self._offset if shifted and row in seen else 0.0 for row in rows]
        logits = self._at_once.fit(lambda size: self._logits(encoded, text, size))
        plan = encoded.plan
        at_once = max(_PROBABILITIES // (plan.y.resized * plan.x.resized), 1)
        for start in range(0, len(rows), at_once):
            part = stitched(logits[:, start : start + at_once], plan, offsets[start : start + at_once])
            yield from part.unbind(0)

    def _logits(self, encoded: Encoded, text: Tensor, at_once: int) -> Tensor:
        """(windows, C, h, w)."""
        with self._kernels:
            return torch.cat(
                [
                    self._networks.head(encoded.tokens[start : start + at_once], text).logits
                    for start in range(0, encoded.plan.num_windows, at_once)
                ]
            )


def stitched(logits: Tensor, plan: WindowPlan, offsets: list[float]) -> Tensor:
    """The scores of some classes for the pixels of the image.

    logits: (windows, C, h, w). offsets: of each class. Returns (C, H, W).
    """
    shape = (logits.shape[1], plan.y.resized, plan.x.resized)
    total, count = logits.new_zeros(shape), logits.new_zeros(shape[1:])
    shift = torch.tensor(offsets, device=logits.device).view(-1, 1, 1)
    places = [(top, left) for top in plan.y.starts for left in plan.x.starts]
    for window, (top, left) in zip(logits, places, strict=True):
        upsampled = F.interpolate(window[None], size=plan.padded_hw, mode="bilinear", align_corners=False)[0]
        where = (..., slice(top, top + plan.y.length), slice(left, left + plan.x.length))
        total[where] += upsampled.sigmoid() - shift
        count[where] += 1
    return F.interpolate((total / count)[None], size=plan.image_hw, mode="bilinear", align_corners=False)[0]


class _Ranking:
    """The two best classes of each pixel. Scores may be negative, so `RunningLabels` does not do."""

    def __init__(self, like: Tensor) -> None:
        self._winner = torch.zeros_like(like, dtype=torch.int32)
        self._best, self._second = torch.full_like(like, -torch.inf), torch.full_like(like, -torch.inf)

    def add(self, index: int, scores: Tensor) -> None:
        wins = scores > self._best
        torch.maximum(self._second, torch.minimum(self._best, scores), out=self._second)
        torch.maximum(self._best, scores, out=self._best)
        self._winner.masked_fill_(wins, index)

    def decoded(self) -> Decoded:
        confidence = self._best.clamp(0, 1)
        return Decoded(self._winner, confidence, confidence - self._second.clamp(0, 1))


def load(
    settings: Mapping[str, Any], files: Mapping[str, Path], *, device: torch.device, dtype: torch.dtype
) -> Teacher:
    """The teacher that `recipes.teachers` names."""
    return Teacher(load_cliprc(files), Settings(**settings), device=device, dtype=dtype)
