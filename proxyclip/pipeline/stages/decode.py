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


@dataclass(frozen=True)
class PendingLabels:
    """The labels of one image, on their way from the device that made them.

    mask, confidence, pixels, sums: on the CPU; see `ImageLabels`. pixels and sums have a last entry for the ignored.
    ready: happens when they are complete; None: they are.
    """

    mask: torch.Tensor
    confidence: torch.Tensor
    pixels: torch.Tensor
    sums: torch.Tensor
    ready: torch.cuda.Event | None

    def wait(self) -> ImageLabels:
        """The labels. Blocks until they are there, without the GIL."""
        if self.ready is not None:
            self.ready.synchronize()
        pixels, sums = self.pixels.numpy(), self.sums.numpy()
        return ImageLabels(
            mask=self.mask.numpy(),
            confidence=self.confidence.numpy(),
            pixels=pixels[:-1],
            confidence_sums=sums[:-1],
            ignored=int(pixels[-1]),
        )

    def compressed(self, uri: str, colours: np.ndarray) -> LabelledImage:
        """As `ImageLabels.compressed`."""
        return self.wait().compressed(uri, colours)


@torch.inference_mode()
def decode_images(
    decoder: LabelsFeatures, features: Sequence[Features], vocabulary: Vocabulary, confidence_stride: int
) -> list[PendingLabels]:
    """Labels of several images. Nothing here waits for a GPU, so it always has work ahead."""
    return [reduced(decoder.labels(dense, vocabulary), vocabulary.num_classes, confidence_stride) for dense in features]


def reduced(labels: Decoded, num_classes: int, confidence_stride: int) -> PendingLabels:
    """Labels on the device that made them, reduced there and sent to the CPU."""
    ignore = ignore_label(num_classes)
    bins = labels.winner.clamp(max=num_classes)  # ignored pixels are counted behind the last class
    pixels, sums = class_sums(bins, labels.confidence, num_classes + 1)
    mask = labels.winner.to(torch.uint8 if ignore == 255 else torch.uint16)
    means = reduce_confidence(labels.confidence, confidence_stride)
    sent = _sent(mask), _sent(means), _sent(pixels), _sent(sums)
    ready = None
    if labels.winner.is_cuda:
        ready = torch.cuda.Event()
        ready.record(torch.cuda.current_stream(labels.winner.device))
    return PendingLabels(*sent, ready)


def _sent(values: torch.Tensor) -> torch.Tensor:
    """Values on the CPU; from a GPU, a copy that it will fill."""
    if not values.is_cuda:
        return values
    return torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
