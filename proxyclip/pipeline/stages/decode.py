"""Decode: from dense features to the stored row of an image. It needs no networks, so relabelling can use it alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from proxyclip.dataset.masks import confidence_to_png, mask_to_png
from proxyclip.dataset.rows import LabelledImage
from proxyclip.models.decoding.decode import Decoded
from proxyclip.models.decoding.reduce import class_sums, reduce_confidence
from proxyclip.models.features import Features
from proxyclip.vocabulary.names import Vocabulary, ignore_label


class LabelsFeatures(Protocol):
    """What turns features into labels: a `Segmenter`, or a `Decoder`, which has no networks."""

    def labels(self, features: Features, vocabulary: Vocabulary) -> Decoded: ...


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image, reduced to what is stored, as arrays on the CPU.

    mask: (H, W) uint8 or uint16, with the ignore label. confidence: block means, uint8. pixels, confidence_sums:
    (K,) per class; ignored: number of pixels without a class.
    """

    mask: np.ndarray
    confidence: np.ndarray
    pixels: np.ndarray
    confidence_sums: np.ndarray
    ignored: int

    def compressed(self, uri: str, colours: np.ndarray) -> LabelledImage:
        """The stored row, with mask and confidence as PNG. zlib releases the GIL, so other threads go on meanwhile.

        colours: (K, 3), the palette of the mask. Confidences are means over the pixels that have a class.
        """
        classes = np.flatnonzero(self.pixels)
        pixels, sums = self.pixels[classes], self.confidence_sums[classes]
        labelled = int(pixels.sum())
        return LabelledImage(
            uri=uri,
            height=self.mask.shape[0],
            width=self.mask.shape[1],
            mask=mask_to_png(self.mask, colours),
            confidence=confidence_to_png(self.confidence),
            classes=classes.tolist(),
            pixels=pixels.tolist(),
            class_confidence=(sums / pixels).tolist(),
            mean_confidence=float(sums.sum() / labelled) if labelled else 0.0,
            ignored=self.ignored,
        )


@torch.inference_mode()
def decode_images(
    decoder: LabelsFeatures, features: Sequence[Features], vocabulary: Vocabulary, confidence_stride: int
) -> list[ImageLabels]:
    """Labels of several images. All are decoded before the first result is fetched: a fetch waits for the whole GPU."""
    decoded = [decoder.labels(dense, vocabulary) for dense in features]
    return [reduced(labels, vocabulary.num_classes, confidence_stride) for labels in decoded]


def reduced(labels: Decoded, num_classes: int, confidence_stride: int) -> ImageLabels:
    """Labels on the device that made them, reduced there and copied to the CPU."""
    ignore = ignore_label(num_classes)
    bins = labels.winner.clamp(max=num_classes)  # ignored pixels are counted behind the last class
    pixels, sums = (part.cpu().numpy() for part in class_sums(bins, labels.confidence, num_classes + 1))
    mask = labels.winner.to(torch.uint8) if ignore == 255 else labels.winner
    return ImageLabels(
        mask=mask.cpu().numpy().astype(np.uint8 if ignore == 255 else np.uint16, copy=False),
        confidence=reduce_confidence(labels.confidence, confidence_stride).cpu().numpy(),
        pixels=pixels[:num_classes],
        confidence_sums=sums[:num_classes],
        ignored=int(pixels[num_classes]),
    )
