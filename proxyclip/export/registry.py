"""The formats by name."""

from __future__ import annotations

from proxyclip.export.formats.coco import Coco
from proxyclip.export.formats.cvat import Cvat
from proxyclip.export.formats.fiftyone import FiftyOne
from proxyclip.export.formats.huggingface import HuggingFace
from proxyclip.export.formats.label_studio import LabelStudio
from proxyclip.export.formats.png import Png
from proxyclip.export.formats.webdataset import WebDataset
from proxyclip.export.formats.yolo import Yolo
from proxyclip.export.target import Format

FORMATS: dict[str, type[Format]] = {
    "png": Png,
    "coco": Coco,
    "label-studio": LabelStudio,
    "cvat": Cvat,
    "yolo": Yolo,
    "huggingface": HuggingFace,
    "webdataset": WebDataset,
    "fiftyone": FiftyOne,
}
