"""The patches of an image, their weights, and the probabilities of their classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from proxyclip.models.decoding.stitch import Stitch
from proxyclip.models.features import Features, StoredFeatures

# Logits of text queries held at once: 64 MB.
_LOGITS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Patches:
    """The patches of all windows of an image.

    features: (N, E). areas: (N,), the share of the image's pixels that each patch decides; they add up to 1. A place
    that several windows see shares its area among them.
    """

    features: Tensor
    areas: Tensor

    @classmethod
    def of(cls, features: Features) -> Patches:
        """Those of an image."""
        stitch = Stitch.of(features)
        areas = torch.outer(stitch.y.matrix.mean(dim=0), stitch.x.matrix.mean(dim=0)).flatten()
        cells = stitch.grid.flatten(0, 1)
        if isinstance(features, StoredFeatures) and features.basis is not None:
            cells = cells @ features.basis
        return cls(cells, areas)


def text_probabilities(patches: Tensor, embeddings: Tensor, query_class: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What the text embeddings say of patches (N, E): a softmax over the queries, and the maximum of each class.

    embeddings: (Q, E). query_class: (Q,), ascending. Returns the probabilities of the K classes (N, K), which add up to
    1, and how sure they are (N,): the largest probability before they were made to.
    """
    sizes = torch.bincount(query_class).tolist()
    parts = []
    for some in patches.split(max(_LOGITS_AT_ONCE // len(embeddings), 1)):
        queries = (some @ (scale * embeddings).T).softmax(dim=1)
        parts.append(torch.stack([each.amax(dim=1) for each in queries.split(sizes, dim=1)], dim=1))
    by_class = torch.cat(parts)
    return by_class / by_class.sum(dim=1, keepdim=True), by_class.amax(dim=1)


def head_probabilities(
    patches: Tensor, weights: Tensor, bias: Tensor, row_class: Tensor, text: Tensor, text_share: float
) -> Tensor:
    """What a head says of patches (N, E), reminded of the text: softmax(log softmax(head) + text_share log(text)).

    weights: (R, E), bias: (R,), row_class: (R,), ascending. text: (N, K), probabilities. Returns (N, K).
    """
    rows = torch.addmm(bias, patches, weights.T)
    sizes = torch.bincount(row_class).tolist()
    scores = torch.stack([each.amax(dim=1) for each in rows.split(sizes, dim=1)], dim=1)
    return (scores.log_softmax(dim=1) + text_share * text.clamp_min(1e-12).log()).softmax(dim=1)
