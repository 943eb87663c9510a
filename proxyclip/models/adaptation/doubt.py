"""How much the label of an image is in doubt, by its patches."""

from __future__ import annotations

from typing import Any

import torch

from proxyclip.models.adaptation.patches import Patches, head_probabilities, text_probabilities
from proxyclip.models.features import Features
from proxyclip.vocabulary.heads import Head
from proxyclip.vocabulary.names import Vocabulary


class ImageDoubt:
    """Measures images.

    vocabulary: with text embeddings. scale: factor on the cosines. head: what the text is compared with; None: nothing.
    """

    def __init__(self, vocabulary: Vocabulary, scale: float, head: Head | None = None) -> None:
        self._text = torch.tensor(vocabulary.embeddings)
        self._query_class = torch.tensor(vocabulary.query_class)
        self._scale = scale
        self._head = None
        if head is not None:
            rows = (torch.tensor(scale * head.weights), torch.tensor(scale * head.bias))
            self._head = (*rows, torch.tensor(head.row_class))

    @torch.inference_mode()
    def of(self, features: Features) -> dict[str, Any]:
        """uncertainty: 1 less the mean margin between the two best classes, by the head if there is one.

        disagreement: the share of the image to which text and head give other classes, or None. place: the mean of the
        patches, as E float16 in bytes. Each patch counts by its area. Raises ValueError if a number is not finite.
        """
        patches = Patches.of(features)
        found, _ = text_probabilities(patches.features, self._text, self._query_class, self._scale)
        disagreement = None
        if self._head is not None:
            by_text = found.argmax(dim=1)
            found = head_probabilities(patches.features, *self._head, found, 0.0)
            disagreement = float(patches.areas @ (found.argmax(dim=1) != by_text).float())
        best = found.topk(min(2, found.shape[1]), dim=1).values
        margin = best[:, 0] - best[:, 1] if best.shape[1] > 1 else best[:, 0]
        mean = patches.areas @ patches.features
        if not bool(mean.isfinite().all()):
            raise ValueError("the features have numbers that are not finite")
        return {
            "uncertainty": 1 - float(patches.areas @ margin),
            "disagreement": disagreement,
            "place": mean.half().numpy().astype("<f2").tobytes(),
        }
