"""What each --quality costs, and how much it changes the labels."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from PIL import Image

from performance.seeded import drawn_images, seeded_clip, seeded_proxy
from performance.tables import Row
from proxyclip.config import Dtype, ModelConfig, SegmenterConfig, WindowConfig
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.cost import gflop_per_image
from proxyclip.models.segmenter import Segmenter
from proxyclip.recipes.quality import QUALITIES
from proxyclip.vocabulary.names import Vocabulary


def measure_costs(device: str, dtype: Dtype) -> list[Row]:
    """Rows for CLIP ViT-B/16 with DINO ViT-B/8, seeded, at the paper's image sizes: most benchmarks, and ADE20K."""
    (image,) = drawn_images(1, (375, 500))
    rows = []
    for side in (336, 448):
        base = SegmenterConfig(ModelConfig(dtype=dtype), WindowConfig(short_side=side))
        exact = 0.0
        for name, quality in QUALITIES.items():
            config = quality.applied_to(base)
            segmenter = Segmenter(seeded_clip(), seeded_proxy(), config, device=device)
            times = []
            for _ in range(4):
                started = time.perf_counter()
                segmenter.encode(image).features.cpu()
                times.append(time.perf_counter() - started)
            seconds = min(times)
            exact = exact or seconds
            rows.append(
                {
                    "short side": str(side),
                    "quality": name,
                    "GFLOP an image": f"{gflop_per_image(config):.0f}",
                    "s an image": f"{seconds:.3f}",
                    "times faster": f"{exact / seconds:.2f}",
                }
            )
    return rows


def measure_agreement(folder: Path) -> list[Row]:
    """Rows for real weights on labelled photographs: labels against those of exact, and against the truth.

    folder: with clip-deit-tiny, vfm-deit-tiny, msrc16-dev, msrc16.json and msrc16.embeddings.safetensors.
    """
    vocabulary = Vocabulary.load(folder / "msrc16.json", folder / "msrc16.embeddings.safetensors")
    model = ModelConfig(
        clip=f"local-dir:{folder / 'clip-deit-tiny'}",
        proxy="deit_tiny_patch16_224",
        proxy_weights=str(folder / "vfm-deit-tiny" / "model.safetensors"),
    )
    photographs = sorted((folder / "msrc16-dev" / "images").iterdir())
    rows, exact = [], None
    for name, quality in QUALITIES.items():
        segmenter = Segmenter.from_config(quality.applied_to(SegmenterConfig(model)))
        matrix, masks = ConfusionMatrix(vocabulary.num_classes), []
        for path in photographs:
            mask = segmenter.predict(path, vocabulary).mask
            matrix.add(np.asarray(Image.open(folder / "msrc16-dev" / "labels" / f"{path.stem}.png")), mask)
            masks.append(mask.ravel())
        labels = np.concatenate(masks)
        exact = labels if exact is None else exact
        equal = f"{100 * (labels == exact).mean():.1f} %"
        rows.append({"quality": name, "labels equal to exact": equal, "mIoU": f"{matrix.mean_iou:.2f}"})
    return rows
