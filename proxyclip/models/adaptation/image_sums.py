"""The statistics of one image, by its text or by a head."""

from __future__ import annotations

import torch

from proxyclip.models.adaptation.patches import Patches, head_probabilities, text_probabilities
from proxyclip.models.adaptation.statistics import Statistics
from proxyclip.models.features import Features
from proxyclip.vocabulary.heads import Head
from proxyclip.vocabulary.names import Vocabulary

# How much the text has a say in the probabilities that a head gives.
TEXT_SHARE = 0.3


class ImageSums:
    """Makes the statistics of images.

    vocabulary: with text embeddings. scale: factor on the cosines. head: gives the probabilities; None: the text does.
    """

    def __init__(self, vocabulary: Vocabulary, scale: float, head: Head | None = None) -> None:
        if vocabulary.embeddings is None:
            raise ValueError(f"Vocabulary {vocabulary.name!r} has no text embeddings.")
        self._text = torch.tensor(vocabulary.embeddings)
        self._query_class = torch.tensor(vocabulary.query_class)
        self._scale = scale
        self._head = None
        if head is not None:
            rows = (torch.tensor(scale * head.weights), torch.tensor(scale * head.bias))
            self._head = (*rows, torch.tensor(head.row_class))

    @torch.inference_mode()
    def of(self, uri: str, features: Features) -> Statistics:
        """Those of an image. Raises ValueError, with its uri, if a number is not finite."""
        patches = Patches.of(features)
        found, sure = text_probabilities(patches.features, self._text, self._query_class, self._scale)
        if self._head is not None:
            found = head_probabilities(patches.features, *self._head, found, TEXT_SHARE)
            sure = found.amax(dim=1)
        return Statistics.of_image(uri, patches.features, patches.areas * sure, found)
