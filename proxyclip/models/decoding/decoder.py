"""Decoder: dense features and a vocabulary to labels, without a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.config import DecodeConfig
from proxyclip.models.decoding.decode import (
    LOGITS_AT_ONCE,
    Decoded,
    decode_features,
    dense_logits,
    of_features,
)
from proxyclip.models.decoding.guided import GuidedFilter
from proxyclip.models.decoding.presence import coarse_hw, coarse_probabilities, most_present, presence
from proxyclip.models.decoding.queries import Queries
from proxyclip.models.decoding.refine import pamr, pamr_affinity
from proxyclip.models.features import Features
from proxyclip.models.memory import BatchSize
from proxyclip.models.pixels import normalise
from proxyclip.vocabulary.heads import Head
from proxyclip.vocabulary.names import Vocabulary, ignore_label

# Vocabularies whose embeddings stay on the device.
VOCABULARIES_KEPT = 8


class Decoder:
    """Labels dense features with the classes of any vocabulary.

    config: used where a call gives none. mean, std: CLIP's, RGB in [0, 1]. PAMR compares pixels normalised by them, in
    units of their spread, so but for rounding they do not matter. device: where it computes; features must lie there.
    head: takes the place of the text embeddings; its vocabulary is then the only one.
    embed: text embeddings (Q, E) of a vocabulary that has none of its own; without it, such a vocabulary raises
    ValueError.
    """

    def __init__(
        self,
        config: DecodeConfig,
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        device: str | torch.device = "cpu",
        embed: Callable[[Vocabulary], Tensor] | None = None,
        head: Head | None = None,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self._mean, self._std = mean, std
        self._embed = embed
        self._head = head
        self._queries: dict[Vocabulary, Queries] = {}
        logits_at_once = LOGITS_AT_ONCE.get(self.device.type, LOGITS_AT_ONCE["cuda"])
        self._logits_at_once = BatchSize("logits", logits_at_once, smallest=logits_at_once // 64)

    @torch.inference_mode()
    def labels(self, features: Features, vocabulary: Vocabulary, config: DecodeConfig | None = None) -> Decoded:
        """The labels of an image, on the device. `winner` is the mask, after the thresholds of the configuration.

        Raises `models.memory.OutOfMemory` if the labels do not fit into memory, however few are decoded at a time.
        """
        config = config or self.config
        _check_background(config, vocabulary)
        _check_thresholds(config, vocabulary)
        decoded = self._logits_at_once.fit(lambda size: self._decode(features, vocabulary, config, size))
        return with_thresholds(decoded, vocabulary, config)

    def _decode(self, features: Features, vocabulary: Vocabulary, config: DecodeConfig, size: int) -> Decoded:
        """Labels before thresholds, with at most `size` logits at once."""
        queries, background = self._queries_for(features, vocabulary), vocabulary.background
        chosen, prior = None, None
        if config.presence > 0 or 0 < config.active < vocabulary.num_classes:
            score = presence(coarse_probabilities(features, of_features(queries, features), config.logit_scale))
            if 0 < config.active < vocabulary.num_classes:
                chosen = most_present(score, config.active, background)
                queries, score = queries.of_classes(chosen), score[chosen]
                background = None if background is None else chosen.index(background)
            if config.presence > 0:
                of_class = config.presence * score.log().float()
                prior = of_class.repeat_interleave(torch.tensor(queries.classes.counts, device=self.device))
        decoded = decode_features(
            features,
            queries,
            logit_scale=config.logit_scale,
            prior=prior,
            refine=self._pamr(features, config),
            guided=self._guided(features, config),
            area_threshold=config.area_threshold,
            background=background,
            logits_at_once=size,
        )
        if chosen is None:
            return decoded
        of_chosen = torch.tensor(chosen, dtype=torch.int32, device=self.device)
        return dataclasses.replace(decoded, winner=of_chosen[decoded.winner])

    @torch.inference_mode()
    def logits(self, features: Features, vocabulary: Vocabulary) -> Tensor:
        """The cosine of every pixel with every query, after PAMR if configured: (Q, H, W), which may be large.

        With a head, what stands in for the cosines: the scores of its rows.
        """
        queries = self._queries_for(features, vocabulary)
        cosines = dense_logits(features, queries.embeddings, queries.bias)
        refine = self._pamr(features, self.config)
        return refine(cosines) if refine else cosines

    def queries(self, vocabulary: Vocabulary) -> Queries:
        """The queries of a vocabulary on the device, kept for the `VOCABULARIES_KEPT` last used."""
        queries = self._queries.pop(vocabulary, None)
        if queries is None:
            queries = self._made(vocabulary)
        self._queries[vocabulary] = queries  # the last used comes last
        if len(self._queries) > VOCABULARIES_KEPT:
            del self._queries[next(iter(self._queries))]
        return queries

    def _made(self, vocabulary: Vocabulary) -> Queries:
        head = self._head
        if head is None:
            return Queries.of(
                self.embeddings(vocabulary).to(self.device), torch.tensor(vocabulary.query_class).to(self.device)
            )
        head.refuse_vocabulary(vocabulary)
        weights, classes, bias = (torch.tensor(each) for each in (head.weights, head.row_class, head.bias))
        return Queries.of(weights.to(self.device), classes.to(self.device), bias.to(self.device))

    def embeddings(self, vocabulary: Vocabulary) -> Tensor:
        """The text embeddings of a vocabulary, (Q, E). Raises ValueError if there are none."""
        if vocabulary.embeddings is not None:
            return torch.tensor(vocabulary.embeddings)
        if self._embed is None:
            raise ValueError(
                f"Vocabulary {vocabulary.name!r} has no text embeddings, and there is no CLIP here to make them; "
                "add them with Segmenter.with_embeddings or Vocabulary.with_embeddings."
            )
        return self._embed(vocabulary)

    def _queries_for(self, features: Features, vocabulary: Vocabulary) -> Queries:
        """The queries of a vocabulary; ValueError if they belong to another CLIP than the features."""
        queries = self.queries(vocabulary)
        width, wanted = queries.embeddings.shape[1], features.dim
        if width != wanted:
            raise ValueError(
                f"Vocabulary {vocabulary.name!r} has embeddings of width {width}, but the image features have width "
                f"{wanted}; use embeddings from the CLIP that made the features."
            )
        return queries

    def _pamr(self, features: Features, config: DecodeConfig) -> Callable[[Tensor], Tensor] | None:
        """PAMR along the edges of the image, resized to the size of the labels; None if not configured."""
        if config.pamr_steps == 0:
            return None
        image = normalise(_image(features, "PAMR", "pamr_steps")[None], self._mean, self._std)
        guide = F.interpolate(image, size=features.image_hw, mode="bilinear", align_corners=False)[0]
        affinity = pamr_affinity(guide, config.pamr_dilations)
        return lambda cosines: pamr(cosines, affinity, config.pamr_dilations, config.pamr_steps)

    def _guided(self, features: Features, config: DecodeConfig) -> GuidedFilter | None:
        """The guided filter along the colours of the image; None if not configured."""
        if config.guided_radius == 0:
            return None
        image = _image(features, "The guided filter", "guided_radius")
        return GuidedFilter.of(image, coarse_hw(features), features.image_hw, config.guided_radius)


def _image(features: Features, what: str, setting: str) -> Tensor:
    """The resized image (3, h, w) in [0, 1], which `what` needs."""
    if features.resized is None:
        raise ValueError(
            f"{what} follows the edges of the image, and these stored features come without it; set {setting} to 0, or "
            "give them the image with dataclasses.replace(features, resized=...)."
        )
    return features.resized.float() / 255


def with_thresholds(decoded: Decoded, vocabulary: Vocabulary, config: DecodeConfig) -> Decoded:
    """The labels after the thresholds on the confidence: `winner` becomes the mask."""
    mask, background = decoded.winner, vocabulary.background
    if background is not None:
        mask = mask.masked_fill(decoded.confidence < config.background_threshold, background)
    if config.ignore_below > 0:
        mask = mask.masked_fill(decoded.confidence < config.ignore_below, ignore_label(vocabulary.num_classes))
    if config.thresholds:
        of_pixel = torch.tensor(config.thresholds, device=mask.device)[mask]
        mask = mask.masked_fill(decoded.confidence < of_pixel, ignore_label(vocabulary.num_classes))
    return dataclasses.replace(decoded, winner=mask)


def _check_thresholds(config: DecodeConfig, vocabulary: Vocabulary) -> None:
    if config.thresholds and len(config.thresholds) != vocabulary.num_classes:
        raise ValueError(
            f"There are {len(config.thresholds)} thresholds, but vocabulary {vocabulary.name!r} has "
            f"{vocabulary.num_classes} classes; use thresholds of this vocabulary."
        )


def _check_background(config: DecodeConfig, vocabulary: Vocabulary) -> None:
    for threshold in ("background_threshold", "area_threshold"):
        if getattr(config, threshold) > 0 and vocabulary.background is None:
            raise ValueError(
                f"{threshold} is {getattr(config, threshold)}, but vocabulary {vocabulary.name!r} has no background "
                "class; name one, or set the threshold to 0."
            )
