"""How good a student is: mIoU on images that it does not learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.images.listing import fetch_image, input_storage
from proxyclip.images.reading import read_pixels
from proxyclip.models.student.card import Card
from proxyclip.models.student.teacher import logits_of
from proxyclip.storage.store import public_uri
from proxyclip.training.mask_dataset import MaskDataset
from proxyclip.training.processes import Processes

Pair = tuple[Tensor, npt.NDArray[np.integer]]

LABELLED, HELD_OUT = "labelled sample", "held-out pseudo-labels"


@dataclass(frozen=True)
class Validation:
    """Images with the labels to score against. kind: LABELLED or HELD_OUT. uris: of the labelled sample."""

    kind: str
    dataset: MaskDataset
    held: Sequence[int]
    uris: Sequence[str]
    images: str
    labels: str

    def __len__(self) -> int:
        return len(self.uris if self.kind == LABELLED else self.held)

    def pairs(self, positions: Sequence[int]) -> Iterator[Pair]:
        """Image, uint8 (3, H, W), and label (H, W)."""
        for position in positions:
            if self.kind == HELD_OUT:
                sample = self.dataset[self.held[position]]
                yield sample["image"].as_subclass(Tensor), sample["mask"].numpy()
            else:
                uri = self.uris[position]
                pixels = read_pixels(fetch_image(input_storage(self.images), uri))
                label = LabelFiles(self.labels).read(uri)
                if label.shape != pixels.shape[:2]:
                    raise ValueError(
                        f"{public_uri(self.labels)}: the label of {uri} has {label.shape[1]} x {label.shape[0]} "
                        f"pixels, the image {pixels.shape[1]} x {pixels.shape[0]}."
                    )
                yield torch.from_numpy(pixels).permute(2, 0, 1), label


@torch.inference_mode()
def labelled_by(network: nn.Module, image: Tensor, card: Card, device: torch.device) -> npt.NDArray[np.int64]:
    """The classes of an image's pixels at its own size."""
    logits = logits_of(network, image.to(device), card)
    full = F.interpolate(logits.softmax(0)[None], size=image.shape[1:], mode="bilinear", align_corners=False)[0]
    classes: npt.NDArray[np.int64] = full.argmax(0).cpu().numpy()
    return classes


def score(network: nn.Module, validation: Validation, card: Card, device: torch.device, processes: Processes) -> float:
    """mIoU in percent over all ranks. Leaves the network in training mode if it was."""
    was_training = network.training
    network.eval()
    matrix = ConfusionMatrix(len(card.classes), validation.dataset.ignore)
    place = processes.place
    for image, label in validation.pairs(range(place.rank, len(validation), place.world_size)):
        matrix.add(label, labelled_by(network, image, card, device))
    network.train(was_training)
    matrix.counts = processes.sum(torch.from_numpy(matrix.counts).to(device)).cpu().numpy()
    return matrix.mean_iou
