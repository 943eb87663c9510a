"""The papers' settings behind their published figures, by method and benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxyclip.config import SegmenterConfig

# A benchmark has the name of its vocabulary; the value is what the papers call it.
BENCHMARKS = {
    "voc21": "VOC21",
    "voc20": "VOC20",
    "context60": "PC60",
    "context59": "PC59",
    "context459": "PC459",
    "cityscapes": "City",
    "ade20k": "ADE150",
    "ade847": "ADE847",
    "coco_object": "COCO-Object",
    "coco_stuff": "COCO-Stuff",
}


@dataclass(frozen=True)
class BenchmarkSettings:
    """How a paper labels a benchmark. Sizes are in pixels; `crop` 0 takes the whole image as one window."""

    short_side: int
    crop: int
    stride: int
    background_threshold: float = 0.0
    logit_scale: float = 40.0
    area_threshold: float = 0.0

    def applied_to(self, config: SegmenterConfig) -> SegmenterConfig:
        """The same recipe with these settings."""
        return replace(
            config,
            windows=replace(config.windows, short_side=self.short_side, crop=self.crop, stride=self.stride),
            decode=replace(
                config.decode,
                background_threshold=self.background_threshold,
                logit_scale=self.logit_scale,
                area_threshold=self.area_threshold,
            ),
        )


def _clearclip(background_threshold: float, crop: int = 448) -> BenchmarkSettings:
    return BenchmarkSettings(448, crop, 224, background_threshold, logit_scale=50.0)


_S = BenchmarkSettings
SETTINGS: Mapping[str, Mapping[str, BenchmarkSettings]] = {
    "proxyclip": {
        "voc21": _S(336, 336, 112, 0.2),
        "voc20": _S(336, 336, 112),
        "context60": _S(336, 336, 112, 0.15),
        "context59": _S(336, 336, 112),
        "context459": _S(448, 336, 112),
        "cityscapes": _S(448, 224, 112),
        "ade20k": _S(448, 336, 112),
        "ade847": _S(448, 336, 112),
        "coco_object": _S(336, 336, 112, 0.25),
        "coco_stuff": _S(336, 336, 112),
    },
    "clearclip": {
        "voc21": _clearclip(0.5),
        "voc20": _clearclip(0.0),
        "context60": _clearclip(0.15),
        "context59": _clearclip(0.0),
        "cityscapes": _clearclip(0.0, crop=224),
        "ade20k": _clearclip(0.0),
        "coco_object": _clearclip(0.4),
        "coco_stuff": _clearclip(0.0),
    },
    "naclip": {
        "voc21": _S(336, 0, 112, 0.1),
        "voc20": _S(336, 0, 112),
        "context60": _S(336, 224, 112, 0.1),
        "context59": _S(336, 224, 112),
        "cityscapes": _S(560, 224, 112),
        "ade20k": _S(336, 224, 112),
        "coco_object": _S(336, 224, 112, 0.1),
        "coco_stuff": _S(336, 224, 112),
    },
    "sclip": {
        "voc21": _S(336, 224, 112, 0.1, logit_scale=65.0, area_threshold=0.1),
        "voc20": _S(336, 224, 112),
        "context60": _S(336, 224, 112, 0.1, logit_scale=50.0),
        "context59": _S(336, 224, 112),
        "cityscapes": _S(560, 224, 112),
        "ade20k": _S(336, 224, 112),
        "coco_object": _S(336, 224, 112, 0.1, logit_scale=50.0),
        "coco_stuff": _S(448, 224, 112),
    },
}
