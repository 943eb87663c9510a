"""The engine in each precision on this CPU: how fast, and how equal the labels."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

from performance.seeded import drawn_images, seeded_clip, seeded_proxy, seeded_vocabulary
from performance.tables import Row
from proxyclip.config import Dtype, ModelConfig, SegmenterConfig
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.segmenter import Segmenter
from proxyclip.vocabulary.names import Vocabulary

DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
QUERIES = (21, 150, 847)


def measure_precisions(rounds: int) -> list[Row]:
    """Networks of full size, seeded: seconds an image by turns, and labels equal to those of float32."""
    (image,) = drawn_images(1, (375, 500))
    segmenters = {
        dtype: Segmenter(seeded_clip(), seeded_proxy(), SegmenterConfig(ModelConfig(dtype=dtype))) for dtype in DTYPES
    }
    features = {dtype: segmenter.encode(image) for dtype, segmenter in segmenters.items()}
    decoder = segmenters["float32"]
    vocabularies = [seeded_vocabulary(features["float32"].features, number) for number in QUERIES]
    masks = {dtype: [decoder.decode(each, words).mask for words in vocabularies] for dtype, each in features.items()}
    times: dict[Dtype, list[float]] = {dtype: [] for dtype in DTYPES}
    for _ in range(rounds):
        for dtype, segmenter in segmenters.items():
            started = time.perf_counter()
            segmenter.encode(image)
            times[dtype].append(time.perf_counter() - started)
    exact = statistics.median(times["float32"])
    rows = []
    for dtype in DTYPES:
        seconds = statistics.median(times[dtype])
        row = {"dtype": str(dtype), "s an image": f"{seconds:.2f}", "times faster": f"{exact / seconds:.2f}"}
        for number, mask, wanted in zip(QUERIES, masks[dtype], masks["float32"], strict=True):
            row[f"equal, {number} queries"] = f"{100 * (mask == wanted).mean():.2f} %"
        rows.append(row)
    return rows


def measure_photographs(folder: Path) -> list[Row]:
    """DeiT-Tiny in place of both networks on labelled photographs: labels equal to those of float32, and mIoU."""
    vocabulary = Vocabulary.load(folder / "msrc16.json", folder / "msrc16.embeddings.safetensors")
    photographs = sorted((folder / "msrc16-dev" / "images").iterdir())
    rows: list[Row] = []
    exact: np.ndarray | None = None
    for dtype in DTYPES:
        model = ModelConfig(
            clip=f"local-dir:{folder / 'clip-deit-tiny'}",
            proxy="deit_tiny_patch16_224",
            proxy_weights=str(folder / "vfm-deit-tiny" / "model.safetensors"),
            dtype=dtype,
        )
        segmenter = Segmenter.from_config(SegmenterConfig(model))
        matrix, masks = ConfusionMatrix(vocabulary.num_classes), []
        for path in photographs:
            mask = segmenter.predict(path, vocabulary).mask
            matrix.add(np.asarray(Image.open(folder / "msrc16-dev" / "labels" / f"{path.stem}.png")), mask)
            masks.append(mask.ravel())
        labels = np.concatenate(masks)
        exact = labels if exact is None else exact
        equal = f"{100 * (labels == exact).mean():.2f} %"
        rows.append({"dtype": str(dtype), "labels equal to float32": equal, "mIoU": f"{matrix.mean_iou:.2f}"})
    return rows
