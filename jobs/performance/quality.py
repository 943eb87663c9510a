"""What each --quality costs and changes: `python jobs/benchmark_quality.py --real FOLDER`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from performance.seeded import drawn_images, seeded_clip, seeded_proxy
from performance.tables import heading, markdown
from proxyclip.config import Dtype, ModelConfig, SegmenterConfig, WindowConfig
from proxyclip.evaluation import ConfusionMatrix
from proxyclip.models.cost import gflop_per_image
from proxyclip.models.segmenter import Segmenter
from proxyclip.recipes.quality import QUALITIES
from proxyclip.vocabulary.names import Vocabulary


@dataclass(frozen=True)
class QualityOptions:
    """Cost with seeded networks of full size, agreement with real weights on labelled photographs."""

    real: str | None = None
    """Folder with clip-deit-tiny, vfm-deit-tiny, msrc16-dev and msrc16.json; without it only costs are measured."""
    device: str = "cpu"
    """Where to run: cpu or cuda."""
    dtype: Dtype = "bfloat16"
    """Precision of the networks whose cost is measured."""


def costs(options: QualityOptions) -> list[dict[str, str]]:
    """CLIP ViT-B/16 with DINO ViT-B/8 at the paper's sizes for most benchmarks and for ADE20K."""
    (image,) = drawn_images(1, (375, 500))
    rows = []
    for side in (336, 448):
        base = SegmenterConfig(ModelConfig(dtype=options.dtype), WindowConfig(short_side=side))
        exact = 0.0
        for name, quality in QUALITIES.items():
            config = quality.applied_to(base)
            segmenter = Segmenter(seeded_clip(), seeded_proxy(), config, device=options.device)
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


def agreement(folder: Path) -> list[dict[str, str]]:
    """Labels against those at exact, and against the truth, on all photographs."""
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


def main() -> None:
    options = tyro.cli(QualityOptions, description=__doc__)
    print(heading(options.device))
    print(f"CLIP ViT-B/16 with DINO ViT-B/8, seeded, {options.dtype}, 500 x 375 pixels\n\n{markdown(costs(options))}\n")
    if options.real is not None:
        print(f"DeiT-Tiny for both networks, float32, msrc16\n\n{markdown(agreement(Path(options.real)))}")


if __name__ == "__main__":
    main()
