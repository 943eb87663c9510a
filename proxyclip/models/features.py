"""Dense features of an image, and the segmentation that they decode to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from proxyclip.models.codec import decode_grid, encode_grid
from proxyclip.models.windows import WindowPlan, merged_cells
from proxyclip.vocabulary.names import Vocabulary, ignore_label
from proxyclip.vocabulary.palette import overlay

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class DenseFeatures:
    """An encoded image. Decoding it for a vocabulary needs nothing else.

    features: (rows, columns, grid_h, grid_w, E) float32, unit length, one patch grid per window.
    resized: (3, h, w) uint8, the image that the windows were cut from; refinements follow its edges.
    regions: (H, W) int32, of the labels: pixels of one number get one class; -1: pixels by themselves. None: all are.
    """

    features: Tensor
    plan: WindowPlan
    resized: Tensor
    regions: Tensor | None = None

    @property
    def image_hw(self) -> tuple[int, int]:
        """Size of the labels in pixels: that of the original image."""
        return self.plan.image_hw

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patches of one window."""
        return self.features.shape[2], self.features.shape[3]

    @property
    def dim(self) -> int:
        """E, the width of the text embeddings that fit."""
        return self.features.shape[-1]

    def on_cpu(self) -> DenseFeatures:
        """The same features in the CPU's memory."""
        return DenseFeatures(self.features.cpu(), self.plan, self.resized.cpu())

    def at_size(self, image_hw: tuple[int, int]) -> DenseFeatures:
        """The same features, for labels of another size."""
        y, x = (
            dataclasses.replace(axis, original=side)
            for axis, side in zip((self.plan.y, self.plan.x), image_hw, strict=True)
        )
        return DenseFeatures(self.features, dataclasses.replace(self.plan, y=y, x=x), self.resized)


@dataclass(frozen=True)
class StoredFeatures:
    """Dense features read from storage. They decode like `DenseFeatures`, within the error of their codec.

    coefficients: (h, w, R) float32, one row for each merged cell of the window grids (`windows.merged_cells`).
    basis: (R, E) float32, which the coefficients multiply; None: R = E and they are the features themselves.
    grid_hw: patches of one window. resized: as in `DenseFeatures`, if somebody has read the image: refinements need it.
    regions: as in `DenseFeatures`.
    """

    coefficients: Tensor
    basis: Tensor | None
    plan: WindowPlan
    grid_hw: tuple[int, int]
    resized: Tensor | None = None
    regions: Tensor | None = None

    @property
    def image_hw(self) -> tuple[int, int]:
        """Size of the labels in pixels: that of the original image."""
        return self.plan.image_hw

    @property
    def dim(self) -> int:
        """E, the width of the text embeddings that fit."""
        return (self.coefficients if self.basis is None else self.basis).shape[-1]


Features: TypeAlias = DenseFeatures | StoredFeatures


@dataclass(frozen=True)
class EncodedFeatures:
    """The features of an image as they are stored.

    codec: a key of `codec.CODECS`. max_error: the largest error of a cosine with a unit vector, over all patches.
    """

    plan: WindowPlan
    grid_hw: tuple[int, int]
    codec: str
    data: bytes
    max_error: float

    @classmethod
    def of(cls, features: DenseFeatures, codec: str = "compact") -> EncodedFeatures:
        """Merge the cells of coinciding patches and encode them."""
        encoded = encode_grid(_merged(features), codec)
        return cls(features.plan, features.grid_hw, encoded.codec, encoded.data, encoded.max_error)

    def decoded(self) -> StoredFeatures:
        """The features. Raises ValueError if the bytes are damaged or do not fit the plan."""
        factors = decode_grid(self.codec, self.data)
        axes = zip((self.plan.y, self.plan.x), self.grid_hw, strict=True)
        wanted = tuple(max(merged_cells(axis, grid, self.plan.whole)) + 1 for axis, grid in axes)
        found = factors.coefficients.shape[:2]
        if found != wanted:
            raise ValueError(f"features are damaged: the grid is {found}, but its windows make {wanted}")
        basis = None if factors.basis is None else torch.from_numpy(factors.basis)
        return StoredFeatures(torch.from_numpy(factors.coefficients), basis, self.plan, self.grid_hw)


def _merged(features: DenseFeatures) -> np.ndarray:
    """The means of the patches that coincide: (h, w, E) float32."""
    rows, columns, grid_h, grid_w, dim = features.features.shape
    cells = features.features.cpu().permute(0, 2, 1, 3, 4).reshape(rows * grid_h, columns * grid_w, dim)
    plan = features.plan
    for number, (axis, grid) in enumerate(((plan.y, grid_h), (plan.x, grid_w))):
        index = torch.tensor(merged_cells(axis, grid, plan.whole))
        shape = list(cells.shape)
        shape[number] = int(index.max()) + 1
        counts = torch.bincount(index).view([-1, 1, 1] if number == 0 else [1, -1, 1])
        cells = cells.new_zeros(shape).index_add_(number, index, cells) / counts
    return cells.numpy()


@dataclass(frozen=True)
class Segmentation:
    """Labels of one image.

    mask: (H, W) uint8, or uint16 beyond 255 classes; 255 (65535) = ignore.
    confidence: (H, W) float32, the probability of the winning class, before any threshold.
    margin: (H, W) float32, the confidence minus the probability of the second class.
    """

    mask: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray
    vocabulary: Vocabulary
    image: np.ndarray | None = None

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """The image with its labels in colour on top."""
        if self.image is None:
            raise ValueError("This Segmentation has no image; use Segmenter.predict, or decode(..., image=image).")
        ignore = ignore_label(self.vocabulary.num_classes)
        return overlay(self.image, self.mask, self.vocabulary.colours, alpha=alpha, ignore=ignore)
