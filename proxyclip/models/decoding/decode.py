"""Dense features and text embeddings to labels, without ever holding queries x height x width logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from proxyclip.models.decoding.fused import can_fuse, top_two
from proxyclip.models.decoding.guided import GuidedFilter
from proxyclip.models.decoding.presence import coarse_probabilities
from proxyclip.models.decoding.queries import Queries
from proxyclip.models.decoding.stitch import Stitch
from proxyclip.models.decoding.votes import RegionVotes
from proxyclip.models.features import Features, StoredFeatures

# Logits held at once. On a CPU they stay in its cache (4 MB of float32); on a GPU, long kernels are faster (512 MB).
LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**27}


@dataclass(frozen=True)
class Decoded:
    """The labels of an image, per pixel of the original.

    winner: (H, W) int32, the winning class. confidence: (H, W) float32, its probability. margin: (H, W) float32, the
    confidence minus the probability of the second class.
    """

    winner: Tensor
    confidence: Tensor
    margin: Tensor


def decode_features(
    features: Features,
    queries: Queries,
    *,
    logit_scale: float,
    prior: Tensor | None = None,
    refine: Callable[[Tensor], Tensor] | None = None,
    guided: GuidedFilter | None = None,
    area_threshold: float = 0.0,
    background: int | None = None,
    logits_at_once: int | None = None,
) -> Decoded:
    """Softmax over all queries, maximum over the queries of each class, argmax over classes, for every pixel.

    Logits are upsampled before labels are taken. Ties go to the class that comes first.

    Where the features have regions, all pixels of a region get its class (`models.decoding.votes`).

    Of stored features, the queries are projected onto their basis; the features themselves are never restored.

    prior: (Q,), added to the logits of each query.
    refine: changes the cosines (queries, H, W) before the softmax. It gets some of the queries at a time, so it must
    treat each by itself.
    guided: filters the class probabilities of a coarse grid; confidence and margin are those of the result.
    area_threshold: a class other than `background` cannot win if it covers at most this share of the pixels that are
    not background; labels are then taken again. Its probability still counts in the softmax (SCLIP, 2312.01597, VOC21).
    logits_at_once: bound on the logits held together, by default that of the device; at least all queries of a pixel.
    """
    stitch = Stitch.of(features)
    device = stitch.grid.device.type
    at_once = logits_at_once or LOGITS_AT_ONCE.get(device, LOGITS_AT_ONCE["cuda"])
    queries = of_features(queries, features)
    maps_at_once = at_once * 16 if device == "cpu" else at_once  # 64 MB: whole maps fit no cache
    coarse = torch.empty(0)
    if guided is not None or features.regions is not None:
        coarse = coarse_probabilities(features, queries, logit_scale, prior)
    votes = None if features.regions is None else RegionVotes.of(features.regions, coarse)

    def decode(allowed: Tensor | None) -> Decoded:
        if votes is None:
            return decode_pixels(allowed)
        voted = Decoded(*votes.best_classes(allowed))
        return voted if votes.everywhere else _chosen(votes.regions >= 0, voted, decode_pixels(allowed))

    def decode_pixels(allowed: Tensor | None) -> Decoded:
        if guided is not None:
            return Decoded(*guided.best_classes(coarse.permute(2, 0, 1), allowed, maps_at_once))
        if refine is None:
            return _decode_tiles(stitch, queries, logit_scale, prior, allowed, at_once)
        return _decode_maps(stitch, queries, prior, allowed, maps_at_once, lambda maps: logit_scale * refine(maps))

    decoded = decode(allowed=None)
    if area_threshold == 0 or background is None:
        return decoded
    return decode(allowed=_large_enough(decoded.winner, queries.classes.count, background, area_threshold))


def of_features(queries: Queries, features: Features) -> Queries:
    """The queries for the features: of stored ones, projected onto their basis."""
    basis = _basis(features)
    return queries if basis is None else queries.projected(basis)


def dense_logits(features: Features, text_embeddings: Tensor, bias: Tensor | None = None) -> Tensor:
    """The cosine of every pixel with every query, plus its bias, (Q, H, W) float32, in unbounded memory."""
    basis = _basis(features)
    return Stitch.of(features).maps(text_embeddings if basis is None else text_embeddings @ basis.T, bias)


def _basis(features: Features) -> Tensor | None:
    return features.basis if isinstance(features, StoredFeatures) else None


def _decode_tiles(
    stitch: Stitch, queries: Queries, logit_scale: float, prior: Tensor | None, allowed: Tensor | None, at_once: int
) -> Decoded:
    """Decode tile by tile, with all queries of a pixel side by side."""
    decoded = _empty(stitch)
    for rows, columns, logits in stitch.tiles(queries, logit_scale, at_once):
        if prior is not None:
            logits += prior[queries.classes.columns]
        by_class = queries.classes.maximum(logits)
        if allowed is None and can_fuse(logits):
            best, index, confidence, margin = top_two(by_class, logits)
        else:
            best, index = by_class.max(dim=-1, keepdim=True)
            peak = best  # of all classes
            if allowed is not None:
                by_class = by_class.masked_fill(~allowed[queries.classes.order], -torch.inf)
                best, index = by_class.max(dim=-1, keepdim=True)
            second = _runner_up(by_class, index, dim=-1)
            total = (logits - peak).exp_().sum(dim=-1, keepdim=True)
            confidence = (best - peak).exp_() / total
            margin = confidence * (1 - (second - best).exp_())
        decoded.winner[rows, columns] = queries.classes.winner(by_class, best, index)[..., 0]
        decoded.confidence[rows, columns] = confidence[..., 0]
        decoded.margin[rows, columns] = margin[..., 0]
    return decoded


def _decode_maps(
    stitch: Stitch,
    queries: Queries,
    prior: Tensor | None,
    allowed: Tensor | None,
    at_once: int,
    logits_of: Callable[[Tensor], Tensor],
) -> Decoded:
    """Decode some classes at a time over the whole image, since refinement needs the neighbours of every pixel."""
    height, width = stitch.image_hw
    device = stitch.grid.device
    pixels = max(height, stitch.grid.shape[0]) * max(width, stitch.grid.shape[1])  # tiny images: more patches
    best = torch.full((height, width), -torch.inf, device=device)
    second, peak = best.clone(), best.clone()  # peak: of all classes
    total = torch.zeros(height, width, device=device)  # sum over queries of exp(logit - peak)
    winner = torch.zeros(height, width, dtype=torch.int32, device=device)
    for some, members in queries.classes.chunks(at_once // pixels):
        bias = None if queries.bias is None else queries.bias[some]
        logits = logits_of(stitch.maps(queries.embeddings[some], bias))
        if prior is not None:
            logits += prior[some, None, None]
        by_class = _map_maximum(logits, queries.classes.counts[members])
        top, index = by_class.max(dim=0, keepdim=True)
        new_peak = torch.maximum(peak, top[0])
        total = total * (peak - new_peak).exp_() + (logits - new_peak).exp_().sum(dim=0)
        peak = new_peak
        if allowed is not None:
            by_class = by_class.masked_fill(~allowed[members, None, None], -torch.inf)
            top, index = by_class.max(dim=0, keepdim=True)
        runner_up = _runner_up(by_class, index, dim=0)[0]
        second = torch.maximum(torch.maximum(second, runner_up), torch.minimum(best, top[0]))
        winner = torch.where(top[0] > best, (index[0] + members.start).int(), winner)
        best = torch.maximum(best, top[0])
    confidence = (best - peak).exp_() / total
    return Decoded(winner, confidence, confidence * (1 - (second - best).exp_()))


def _runner_up(by_class: Tensor, winner: Tensor, dim: int) -> Tensor:
    """The second largest value along `dim`, which stays as a dimension of 1; -inf if there is only one class."""
    at_winner = by_class.gather(dim, winner)
    second = by_class.scatter_(dim, winner, -torch.inf).amax(dim=dim, keepdim=True)
    by_class.scatter_(dim, winner, at_winner)
    return second


def _map_maximum(logits: Tensor, counts: Sequence[int]) -> Tensor:
    """The maximum over the queries of each class: (Q, H, W) to (len(counts), H, W)."""
    if len(counts) == logits.shape[0]:
        return logits
    return torch.stack([part.amax(dim=0) for part in logits.split(list(counts))])


def _empty(stitch: Stitch) -> Decoded:
    shape, device = stitch.image_hw, stitch.grid.device
    return Decoded(
        torch.empty(shape, dtype=torch.int32, device=device),
        torch.empty(shape, device=device),
        torch.empty(shape, device=device),
    )


def _chosen(where: Tensor, one: Decoded, other: Decoded) -> Decoded:
    """`one` where `where` (H, W) says so, `other` elsewhere."""
    return Decoded(
        torch.where(where, one.winner, other.winner),
        torch.where(where, one.confidence, other.confidence),
        torch.where(where, one.margin, other.margin),
    )


def _large_enough(winner: Tensor, num_classes: int, background: int, area_threshold: float) -> Tensor:
    """Which classes may win, (num_classes,) bool: the background, and those that cover more than `area_threshold`."""
    areas = torch.bincount(winner.flatten(), minlength=num_classes)
    areas[background] = 0
    allowed = areas > area_threshold * areas.sum()
    allowed[background] = True
    return allowed
