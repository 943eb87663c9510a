"""yolo: polygons of every connected region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import yaml

from proxyclip.export.components import Component, components
from proxyclip.export.pictures import Picture
from proxyclip.export.selection import ExportImage
from proxyclip.export.target import Format, Parts, ShardFiles, WholeFile


class Yolo(Format):
    """labels/NAME.txt for each image, and data.yaml. The images are expected in images/, under the same names.

    A polygon goes through the centres of a region's outer pixels. Holes are lost, and confidences. The largest outline
    comes first: a reader that draws the polygons in order gets back what lies in a hole, unless it is ignore.
    """

    named_after_images = True

    def shard(self, shard: int, images: Sequence[tuple[ExportImage, Picture | None]]) -> ShardFiles:
        return ShardFiles({f"labels/{image.name}.txt": self._lines(image).encode() for image, _ in images})

    def finish(self, parts: Parts) -> Iterator[WholeFile]:
        about = {"train": "images", "val": "images", "names": dict(enumerate(self.target.class_names))}
        yield "data.yaml", [yaml.safe_dump(about, sort_keys=False, allow_unicode=True).encode()]

    def _lines(self, image: ExportImage) -> str:
        outlines = [
            (index, _outline(region))
            for index, where in image.regions()
            for region in components(where, self.target.min_area)
        ]
        # A region in the hole of another one has the smaller outline, though not always fewer pixels.
        outlines.sort(key=lambda each: -cv2.contourArea(each[1]))
        size = np.array([image.row.width, image.row.height])
        return "".join(
            f"{index} " + " ".join(f"{x:.6f} {y:.6f}" for x, y in (points + 0.5) / size) + "\n"
            for index, points in outlines
        )


def _outline(region: Component) -> np.ndarray:
    """The corners of a region's outer border, at least three points: pixels (x, y), (P, 2)."""
    outer, _ = cv2.findContours(region.inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    (points,) = outer
    points = points[:, 0] + np.array([region.left, region.top], np.int32)
    return np.vstack([points, *[points[-1:]] * (3 - len(points))])
