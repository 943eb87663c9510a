"""label-studio: tasks with brush pre-annotations and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from proxyclip.export.pictures import Picture
from proxyclip.export.selection import ExportImage
from proxyclip.export.target import Format, Parts, ShardFiles, Target, WholeFile, json_text, missing_library
from proxyclip.images.inputs.names import is_address


class LabelStudio(Format):
    """tasks/SHARD.json, each a file to import, and config.xml, the labelling interface of the project.

    One file for each shard, since Label Studio reads a file that is imported as a whole.
    """

    def __init__(self, target: Target) -> None:
        try:
            from label_studio_sdk.converter import brush
        except ImportError as error:
            raise missing_library("label-studio-sdk", "label-studio", error) from error
        super().__init__(target)
        self._brush = brush

    def shard(self, shard: int, images: Sequence[tuple[ExportImage, Picture | None]]) -> ShardFiles:
        if not images:
            return ShardFiles()
        tasks = ",\n".join(json_text(self._task(image)) for image, _ in images)
        return ShardFiles({f"tasks/{shard:06d}.json": f"[{tasks}]\n".encode()})

    def finish(self, parts: Parts) -> Iterator[WholeFile]:
        labels = "".join(
            f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>\n'
            for name, colour in zip(self.target.class_names, self.target.colours, strict=True)
        )
        text = (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <BrushLabels name="labels" toName="image">\n{labels}  </BrushLabels>\n</View>\n'
        )
        yield "config.xml", [text.encode()]

    def _task(self, image: ExportImage) -> dict[str, Any]:
        prediction = {
            "model_version": "proxyclip",
            "score": round(float(image.row.mean_confidence), 4),
            "result": [self._region(image, index, where) for index, where in image.regions()],
        }
        data = {"image": _address(self.target, image.uri), "uri": image.uri}
        return {"data": data, "predictions": [prediction]}

    def _region(self, image: ExportImage, index: int, where: np.ndarray) -> dict[str, Any]:
        rle = self._brush.mask2rle(where.astype(np.uint8) * 255)
        return {
            "id": f"class-{index}",
            "type": "brushlabels",
            "from_name": "labels",
            "to_name": "image",
            "original_width": image.row.width,
            "original_height": image.row.height,
            "image_rotation": 0,
            "score": image.score(where),
            "value": {"format": "rle", "rle": rle, "brushlabels": [self.target.class_names[index]]},
        }


def _address(target: Target, uri: str) -> str:
    """Where Label Studio finds an image. In an address of the web, odd characters of the name are escaped."""
    prefix = target.image_prefix
    if prefix is None and is_address(uri):
        return uri
    if prefix is None and "://" in target.input:
        return f"{target.input}/{uri}"
    if prefix is None:  # with LOCAL_FILES_DOCUMENT_ROOT=/
        prefix = f"/data/local-files/?d={quote(target.input.strip('/'))}/"
    return prefix + (quote(uri) if prefix.startswith(("http://", "https://", "/")) else uri)
