"""The losses of CLIP-RC, and the labels that they compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.models.cliprc.head import HeadOutput

# A pixel without a label, in the labels of this folder.
IGNORE = -1

# Of the focal loss: the weight of positives, and the exponent.
_ALPHA, _GAMMA = 0.25, 2


@dataclass(frozen=True)
class Weights:
    """The weight of each loss."""

    focal: float = 100.0
    dice: float = 1.0
    recovery: float = 2.0


@dataclass(frozen=True)
class Losses:
    """Unweighted, each a scalar. Focal and dice are sums over the present pairs of image and class, not yet divided.

    pairs: how many of these there are.
    """

    focal: Tensor
    dice: Tensor
    recovered_queries: Tensor
    recovered_patches: Tensor
    pairs: Tensor

    def total(self, weights: Weights, pairs: Tensor) -> Tensor:
        """pairs: what focal and dice are divided by, the mean over all processes; at least 1."""
        by_pair = weights.focal * self.focal + weights.dice * self.dice
        return by_pair / pairs.clamp(min=1) + weights.recovery * (self.recovered_queries + self.recovered_patches)


def losses_of(
    logits: Tensor,
    labels: Tensor,
    found: HeadOutput,
    recovered: tuple[Tensor, Tensor],
    patches: Tensor,
    *,
    ignored_are_negatives: bool = True,
) -> Losses:
    """All losses of a batch.

    logits: (B, C, H, W), at the size of the labels. labels: (B, H, W), classes and IGNORE. recovered: what the recovery
    decoder gives. patches: (B, D, h, w), what it should rebuild, beside `found.queries`.
    ignored_are_negatives: as the release does, pixels without a label count as negatives of every class. Otherwise
    they do not count in focal and dice loss.
    """
    known = labels != IGNORE
    targets = F.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1).to(logits.dtype) * known[:, None]
    counted = torch.ones_like(known) if ignored_are_negatives else known
    counted = counted[:, None].to(logits.dtype)
    present = targets.flatten(2).amax(dim=2)  # (B, C)
    queries, vectors = recovered
    return Losses(
        focal=_focal(logits, targets, counted),
        dice=(_dice(logits, targets, counted) * present).sum(),
        recovered_queries=(queries - found.queries.detach()).abs().mean(),
        recovered_patches=(vectors - patches.flatten(2).transpose(1, 2).detach()).abs().mean(),
        pairs=present.sum(),
    )


def _focal(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """The sum over images and classes of the mean over pixels."""
    p = logits.sigmoid()
    hit = p * targets + (1 - p) * (1 - targets)
    weight = _ALPHA * targets + (1 - _ALPHA) * (1 - targets)
    each = weight * (1 - hit) ** _GAMMA * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    pixels = counted.flatten(1).sum(dim=1).clamp(min=1)
    return ((each * counted).flatten(1).sum(dim=1) / pixels).sum()


def _dice(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """(B, C)."""
    p, y = (logits.sigmoid() * counted).flatten(2), targets.flatten(2)
    return 1 - (2 * (p * y).sum(dim=2) + 1) / (p.sum(dim=2) + y.sum(dim=2) + 1)


def seen_only(labels: Tensor, seen: Sequence[int]) -> Tensor:
    """Labels of an inductive training: the position of each seen class among the seen ones; unseen ones are ignored."""
    table = torch.full((int(max(seen)) + 2,), IGNORE, dtype=labels.dtype, device=labels.device)
    for position, index in enumerate(seen):
        table[index] = position
    return table[torch.where((labels >= 0) & (labels <= max(seen)), labels, len(table) - 1)]


def pseudo_labelled(labels: Tensor, logits: Tensor, unseen: Sequence[int]) -> Tensor:
    """Labels of a transductive training: a pixel of an unseen class gets the unseen class with the highest logit.

    So the training knows where unseen classes are, and not which of them.
    """
    choices = torch.tensor(unseen, device=labels.device)
    best = choices[logits.detach()[:, list(unseen)].argmax(dim=1)].to(labels.dtype)
    return torch.where(torch.isin(labels, choices.to(labels.dtype)), best, labels)
