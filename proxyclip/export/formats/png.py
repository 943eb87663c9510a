"""png: a tree of index PNG files with the images' names, and a dataset for mmsegmentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pprint import pformat

from proxyclip.export.names import suffix
from proxyclip.export.pictures import Picture
from proxyclip.export.selection import ExportImage
from proxyclip.export.target import Format, Parts, ShardFiles, WholeFile, json_lines, read_lines

_CONFIG = '''"""A dataset for mmsegmentation 1.x. In a config: `_base_ = ["dataset_config.py"]`, `_base_.dataset`."""

classes = {classes}
palette = {palette}

# The names of the images, without suffix, are in images.txt.{others}
dataset = dict(
    type="BaseSegDataset",
    data_root={root!r},
    data_prefix=dict(img_path={images!r}, seg_map_path="annotations"),
    ann_file="images.txt",
    img_suffix={suffix!r},
    seg_map_suffix=".png",
    metainfo=dict(classes=classes, palette=palette),
    reduce_zero_label=False,
    ignore_index={ignore},
    pipeline=[],
)
'''


class Png(Format):
    """annotations/NAME.png for each image. With up to 255 classes 8-bit with a palette, else 16-bit gray."""

    named_after_images = True

    def shard(self, shard: int, images: Sequence[tuple[ExportImage, Picture | None]]) -> ShardFiles:
        files = {f"annotations/{image.name}.png": image.mask_png for image, _ in images}
        return ShardFiles(files, json_lines([image.uri, image.name] for image, _ in images))

    def finish(self, parts: Parts) -> Iterator[WholeFile]:
        counts = Counter(suffix(uri) for uri, name in read_lines(parts) if _fits(uri, name, suffix(uri)))
        main = min(counts, key=lambda each: (-counts[each], each), default=".jpg")
        total = sum(1 for _ in read_lines(parts))
        yield "images.txt", (f"{name}\n".encode() for uri, name in read_lines(parts) if _fits(uri, name, main))
        target = self.target
        left = total - counts[main]
        others = f"\n# {left} more images have another suffix or a name that this list cannot hold." if left else ""
        text = _CONFIG.format(
            classes=pformat(list(target.class_names), width=100),
            palette=pformat([list(colour) for colour in target.colours], width=100),
            others=others,
            root=target.destination,
            images=target.input,
            suffix=main,
            ignore=target.ignore,
        )
        yield "dataset_config.py", [text.encode()]


def _fits(uri: str, name: str, suffix: str) -> bool:
    """Whether mmsegmentation finds image and mask by a line of images.txt."""
    return uri == name + suffix and name == name.strip() and len(name.splitlines()) == 1
