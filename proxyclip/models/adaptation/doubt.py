"""How much the label of an image is in doubt, by its patches."""

from __future__ import annotations

import math

import torch

from proxyclip.models.adaptation.patches import Patches, text_probabilities
from proxyclip.models.features import Features
from proxyclip.vocabulary.names import Vocabulary


class ImageDoubt:
    """Measures images. vocabulary: with text embeddings. scale: factor on the cosines."""

    def __init__(self, vocabulary: Vocabulary, scale: float) -> None:
        self._text = torch.tensor(vocabulary.embeddings)
        self._query_class = torch.tensor(vocabulary.query_class)
        self._scale = scale

    @torch.inference_mode()
    def of(self, features: Features) -> float:
        """1 less the mean margin between the two best classes, 0 to 1; each patch counts by its area.

        Raises ValueError if a number is not finite.
        """
        patches = Patches.of(features)
        found, _ = text_probabilities(patches.features, self._text, self._query_class, self._scale)
        best = found.topk(min(2, found.shape[1]), dim=1).values
        margin = best[:, 0] - best[:, 1] if best.shape[1] > 1 else best[:, 0]
        doubt = 1 - float(patches.areas @ margin)
        if not math.isfinite(doubt):
            raise ValueError("the features have numbers that are not finite")
        return doubt
