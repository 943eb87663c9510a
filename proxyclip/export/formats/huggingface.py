"""huggingface: a folder that `datasets.load_dataset` opens, with the images."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from proxyclip.export.gray import gray_png
from proxyclip.export.pictures import Picture
from proxyclip.export.selection import ExportImage
from proxyclip.export.target import Format, Parts, ShardFiles, WholeFile

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS = {
    "image": (_IMAGE, {"_type": "Image"}),
    "mask": (_IMAGE, {"_type": "Image"}),
    "confidence": (_IMAGE, {"_type": "Image"}),
    "uri": (pa.string(), {"dtype": "string", "_type": "Value"}),
    "mean_confidence": (pa.float32(), {"dtype": "float32", "_type": "Value"}),
}
# What `datasets` reads the kinds of the columns from.
_INFO = {"info": {"features": {name: feature for name, (_, feature) in _COLUMNS.items()}}}
_SCHEMA = pa.schema([(name, kind) for name, (kind, _) in _COLUMNS.items()], metadata={"huggingface": json.dumps(_INFO)})

_README = """---
{front}---

# Labels of proxyclip: {name}

| column | |
|---|---|
| `image` | the image |
| `mask` | one channel, the index of the class of each pixel; {ignore} = no class |
| `confidence` | one channel, 255 times the probability of the class, for blocks of the image's pixels |
| `uri` | the image's name in the corpus |
| `mean_confidence` | over the labelled pixels, 0 to 1 |

`id2label.json` names the classes.
"""


class HuggingFace(Format):
    """data/train-SHARD.parquet, README.md with the data set's card, and id2label.json."""

    carries_images = True

    def shard(self, shard: int, images: Sequence[tuple[ExportImage, Picture | None]]) -> ShardFiles:
        rows = [_row(image, picture) for image, picture in images if picture is not None]
        if not rows:
            return ShardFiles()
        buffer = io.BytesIO()
        # Few rows a group: `datasets` and its viewer read whole groups.
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), buffer, row_group_size=100, compression="NONE")
        return ShardFiles({f"data/train-{shard:06d}.parquet": buffer.getvalue()})

    def finish(self, parts: Parts) -> Iterator[WholeFile]:
        names = {str(index): name for index, name in enumerate(self.target.class_names)}
        yield "id2label.json", [(json.dumps(names, ensure_ascii=False, indent=1) + "\n").encode()]
        front = {
            "task_categories": ["image-segmentation"],
            "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        }
        text = _README.format(
            front=yaml.safe_dump(front, sort_keys=False), name=self.target.name, ignore=self.target.ignore
        )
        yield "README.md", [text.encode()]


def _row(image: ExportImage, picture: Picture) -> dict[str, Any]:
    return {
        "image": {"bytes": picture.data, "path": f"{image.uri.rpartition('/')[2]}"},
        "mask": {"bytes": gray_png(image.mask_png), "path": None},
        "confidence": {"bytes": image.row.confidence, "path": None},
        "uri": image.uri,
        "mean_confidence": image.row.mean_confidence,
    }
