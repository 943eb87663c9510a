"""cvat: masks for images, as CVAT's XML 1.1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt

from proxyclip.export.pictures import Picture
from proxyclip.export.selection import ExportImage
from proxyclip.export.target import Format, Parts, ShardFiles, WholeFile, json_lines, json_text, read_lines

_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Cvat(Format):
    """annotations.xml, "CVAT for images 1.1", with one mask for each class of an image, and labels.json.

    Confidences are lost. labels.json is for the raw label editor of a new task.
    """

    def refuses(self, uri: str) -> str | None:
        return "XML cannot hold a control character of its name" if _NOT_IN_XML.search(uri) else None

    def shard(self, shard: int, images: Sequence[tuple[ExportImage, Picture | None]]) -> ShardFiles:
        return ShardFiles(part=json_lines(self._image(image) for image, _ in images))

    def finish(self, parts: Parts) -> Iterator[WholeFile]:
        labels = [
            {"name": name, "color": f"#{bytes(colour).hex()}", "type": "mask", "attributes": []}
            for name, colour in zip(self.target.class_names, self.target.colours, strict=True)
        ]
        yield "labels.json", [f"{json_text(labels)}\n".encode()]
        yield "annotations.xml", chain([self._head(sum(1 for _ in read_lines(parts))).encode()], self._images(parts))

    def _head(self, num_images: int) -> str:
        labels = "".join(
            f"      <label><name>{escape(name)}</name><color>#{bytes(colour).hex()}</color><type>mask</type>"
            "<attributes></attributes></label>\n"
            for name, colour in zip(self.target.class_names, self.target.colours, strict=True)
        )
        return (
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
            f"      <name>{escape(self.target.name)}</name>\n      <size>{num_images}</size>\n"
            f"      <mode>annotation</mode>\n      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
        )

    def _images(self, parts: Parts) -> Iterator[bytes]:
        """Numbers the images from 0, in order of shard."""
        for number, (attributes, masks) in enumerate(read_lines(parts)):
            yield f'  <image id="{number}" {attributes}>\n{masks}  </image>\n'.encode()
        yield b"</annotations>\n"

    def _image(self, image: ExportImage) -> list[str]:
        row = image.row
        masks = "".join(self._mask(index, where) for index, where in image.regions())
        return [f'name={quoteattr(image.uri)} width="{row.width}" height="{row.height}"', masks]

    def _mask(self, index: int, where: npt.NDArray[np.bool_]) -> str:
        rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        top, left = int(rows[0]), int(columns[0])
        box = where[top : rows[-1] + 1, left : columns[-1] + 1]
        height, width = box.shape
        runs = ", ".join(map(str, _run_lengths(box.ravel())))
        return (
            f'    <mask label={quoteattr(self.target.class_names[index])} source="auto" occluded="0" rle="{runs}" '
            f'left="{left}" top="{top}" width="{width}" height="{height}" z_order="0"></mask>\n'
        )


def _run_lengths(flat: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of False and True by turns; the first is of False and may be 0."""
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths
