"""coco: run lengths of every class (stuff), and of its connected regions (instances)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.export.components import components
from proxyclip.export.pictures import Picture
from proxyclip.export.selection import ExportImage
from proxyclip.export.target import (
    Format,
    Parts,
    ShardFiles,
    Target,
    WholeFile,
    json_lines,
    json_text,
    missing_library,
    read_lines,
)

KINDS = ("stuff", "instances")


class Coco(Format):
    """annotations/stuff.json and annotations/instances.json. The id of a category is its class's index plus 1."""

    def __init__(self, target: Target) -> None:
        try:
            from pycocotools import mask
        except ImportError as error:
            raise missing_library("pycocotools", "coco", error) from error
        super().__init__(target)
        self._rle = mask

    def shard(self, shard: int, images: Sequence[tuple[ExportImage, Picture | None]]) -> ShardFiles:
        return ShardFiles(part=json_lines(self._record(image) for image, _ in images))

    def finish(self, parts: Parts) -> Iterator[WholeFile]:
        for kind in KINDS:
            yield f"annotations/{kind}.json", self._document(kind, parts)

    def _record(self, image: ExportImage) -> dict[str, Any]:
        stuff, instances = [], []
        for index, where in image.regions():
            stuff.append(self._annotation(index, where, image.score(where)))
            for region in components(where, self.target.min_area):
                score = image.score(region.inside, region.top, region.left)
                instances.append(self._annotation(index, region.where(where.shape), score))
        row = image.row
        about = {"file_name": image.uri, "height": row.height, "width": row.width}
        return {"image": about, "stuff": stuff, "instances": instances}

    def _annotation(self, index: int, where: npt.NDArray[np.bool_], score: float) -> dict[str, Any]:
        rle = self._rle.encode(np.asfortranarray(where).view(np.uint8))
        return {
            "category_id": index + 1,
            "segmentation": {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()},
            "area": int(self._rle.area(rle)),
            "bbox": [float(side) for side in self._rle.toBbox(rle)],
            "iscrowd": 0,
            "score": score,
        }

    def _document(self, kind: str, parts: Parts) -> Iterator[bytes]:
        """Numbers images and annotations from 1, in order of shard."""
        names = self.target.class_names
        categories = [{"id": index + 1, "name": name, "supercategory": ""} for index, name in enumerate(names)]
        about = {"description": f"Labels of proxyclip: {kind}"}
        yield f'{{"info":{json_text(about)},"licenses":[],"categories":{json_text(categories)},\n"images":['.encode()
        for number, record in enumerate(read_lines(parts), 1):
            yield f"{',' if number > 1 else ''}\n{json_text({'id': number, **record['image']})}".encode()
        yield b'],\n"annotations":['
        count = 0
        for number, record in enumerate(read_lines(parts), 1):
            for annotation in record[kind]:
                count += 1
                row = {"id": count, "image_id": number, **annotation}
                yield f"{',' if count > 1 else ''}\n{json_text(row)}".encode()
        yield b"]}\n"
