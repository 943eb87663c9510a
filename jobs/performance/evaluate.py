"""How fast masks are scored against labels."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
from PIL import Image

from performance.tables import Row
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.masks import confidence_to_png, mask_to_png
from proxyclip.dataset.rows import LabelledImage
from proxyclip.dataset.run_record import RunRecord, begin_run
from proxyclip.dataset.shards import write_shard
from proxyclip.demo.scenes import draw_scene
from proxyclip.images.listing import ImageRef
from proxyclip.pipeline.evaluate.options import EvaluateOptions
from proxyclip.pipeline.evaluate.run import evaluate
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.palette import default_palette

SIZES_HW = ((213, 320), (480, 640))
NUM_CLASSES = (21, 847)
_SCENES = 16


def measure_scoring(folder: Path, num_images: int) -> list[Row]:
    """Rows for masks of drawn scenes, in this process: PNG files read, counted, boundaries and report included."""
    rows = []
    for size_hw in SIZES_HW:
        for num_classes in NUM_CLASSES:
            place = folder / f"{size_hw[0]}-{num_classes}"
            _make_output(place, num_images, size_hw, num_classes)
            started, cpu_started = time.perf_counter(), time.process_time()
            evaluated = evaluate(EvaluateOptions(str(place / "out"), str(place / "labels")))
            seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
            if evaluated.exit_code:
                raise RuntimeError(f"the evaluation ended with {evaluated.exit_code}")
            rows.append(
                {
                    "size": f"{size_hw[1]} x {size_hw[0]}",
                    "classes": str(num_classes),
                    "images": str(num_images),
                    "images/s": f"{num_images / seconds:.0f}",
                    "images per CPU second": f"{num_images / cpu_s:.0f}",
                }
            )
    return rows


def _make_output(place: Path, num_images: int, size_hw: tuple[int, int], num_classes: int) -> None:
    """An output that has masks a few pixels beside its labels."""
    storage, names = Storage(str(place / "out")), [f"class {index}" for index in range(num_classes)]
    begin_run(storage, RunRecord("/drawn", {}, "drawn"), {"name": "drawn", "classes": names})
    uris = [f"{number:06d}.jpg" for number in range(num_images)]
    manifest = Manifest(storage)
    manifest.extend_plan([ImageRef(uri, 1, "1") for uri in uris])
    images = [_image(seed, size_hw, num_classes) for seed in range(_SCENES)]
    (place / "labels").mkdir(parents=True)
    for number, uri in enumerate(uris):
        (place / "labels" / uri).with_suffix(".png").write_bytes(images[number % _SCENES][1])
    for task in manifest.pending():
        for shard, refs in manifest.read_range(task):
            chosen = [(ref.uri, images[int(ref.uri[:6]) % _SCENES][0]) for ref in refs]
            write_shard(storage, shard, [LabelledImage(uri, **fields) for uri, fields in chosen], [], names)


def _image(seed: int, size_hw: tuple[int, int], num_classes: int) -> tuple[dict, bytes]:
    """The fields of a labelled image, and the PNG file of its label."""
    kind = np.uint8 if num_classes <= 255 else np.uint16
    label = (draw_scene(seed, size_hw).mask.astype(kind) * 40) % num_classes
    mask = np.roll(label, 5, axis=1).astype(kind)
    buffer = io.BytesIO()
    Image.fromarray(label.astype(kind)).save(buffer, "PNG")
    classes, pixels = np.unique(mask, return_counts=True)
    confidence = np.full((-(-size_hw[0] // 4), -(-size_hw[1] // 4)), 255, np.uint8)
    fields = {
        "height": size_hw[0],
        "width": size_hw[1],
        "mask": mask_to_png(mask, default_palette(num_classes)),
        "confidence": confidence_to_png(confidence),
        "classes": classes.tolist(),
        "pixels": pixels.tolist(),
        "class_confidence": [1.0] * len(classes),
        "mean_confidence": 1.0,
        "ignored": 0,
    }
    return fields, buffer.getvalue()
