"""webdataset: tar files with image, mask, confidence and facts of each image."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence

from proxyclip.export.gray import gray_png
from proxyclip.export.pictures import Picture
from proxyclip.export.selection import ExportImage
from proxyclip.export.target import Format, Parts, ShardFiles, WholeFile, json_text


class WebDataset(Format):
    """SHARD.tar, and classes.json. A sample is called after its shard and its place there; its json has the uri.

    Image names may hold dots, at which WebDataset would cut them.
    """

    carries_images = True

    def shard(self, shard: int, images: Sequence[tuple[ExportImage, Picture | None]]) -> ShardFiles:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number, (image, picture) in enumerate(images):
                if picture is not None:
                    for suffix, data in self._files(image, picture):
                        member = tarfile.TarInfo(f"{shard:06d}-{number:06d}.{suffix}")  # time, owner and group are 0
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
        return ShardFiles({f"{shard:06d}.tar": buffer.getvalue()} if images else {})

    def finish(self, parts: Parts) -> Iterator[WholeFile]:
        about = {"classes": list(self.target.class_names), "ignore": self.target.ignore}
        yield "classes.json", [(json.dumps(about, ensure_ascii=False, indent=1) + "\n").encode()]

    def _files(self, image: ExportImage, picture: Picture) -> Iterator[tuple[str, bytes]]:
        row = image.row
        yield picture.suffix, picture.data
        # "mask.png" and not "png", which may be the image.
        yield "mask.png", gray_png(image.mask_png)
        yield "confidence.png", row.confidence
        about = {
            "uri": image.uri,
            "height": row.height,
            "width": row.width,
            "mean_confidence": round(float(row.mean_confidence), 4),
            "confidence_stride": image.selection.confidence_stride,
        }
        yield "json", json_text(about).encode()
