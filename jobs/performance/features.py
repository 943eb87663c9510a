"""What stored features cost in bytes and time, and how much each codec changes the labels."""

from __future__ import annotations

import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from performance.seeded import drawn_images, seeded_clip, seeded_proxy
from performance.tables import Row
from proxyclip.config import ModelConfig, SegmenterConfig
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.codec import CODECS
from proxyclip.models.features import DenseFeatures, EncodedFeatures
from proxyclip.models.segmenter import Segmenter
from proxyclip.vocabulary.names import Vocabulary

T = TypeVar("T")

QUERIES = (21, 150, 847)


@dataclass
class Measured:
    """What was measured of a codec, with an entry for each photograph in every list.

    equal: by vocabulary, the share of pixels with the same label as from the features of the network.
    """

    matrix: ConfusionMatrix
    size_bytes: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    equal: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def measure_codecs(folder: Path, every: int) -> list[Row]:
    """Rows for real weights on labelled photographs: bytes, error, and labels with several vocabularies.

    folder: with clip-deit-tiny, vfm-deit-tiny, msrc16-dev, msrc16.json and msrc16.embeddings.safetensors.
    every: take one of so many photographs.
    """
    msrc16 = Vocabulary.load(folder / "msrc16.json", folder / "msrc16.embeddings.safetensors")
    vocabularies = {"msrc16": msrc16, **{f"{count} queries": mixed_vocabulary(msrc16, count) for count in QUERIES}}
    model = ModelConfig(
        clip=f"local-dir:{folder / 'clip-deit-tiny'}",
        proxy="deit_tiny_patch16_224",
        proxy_weights=str(folder / "vfm-deit-tiny" / "model.safetensors"),
    )
    segmenter = Segmenter.from_config(SegmenterConfig(model))
    measured = {codec: Measured(ConfusionMatrix(msrc16.num_classes)) for codec in ("none", *CODECS)}
    for path in sorted((folder / "msrc16-dev" / "images").iterdir())[::every]:
        truth = np.asarray(Image.open(folder / "msrc16-dev" / "labels" / f"{path.stem}.png"))
        dense = segmenter.encode(path)
        exact = {name: segmenter.decode(dense, vocabulary).mask for name, vocabulary in vocabularies.items()}
        for codec, so_far in measured.items():
            labels = exact
            if codec == "none":
                so_far.size_bytes.append(dense.features.nbytes)
            else:
                encoded, encode_s = _timed(functools.partial(EncodedFeatures.of, dense, codec))
                stored, decode_s = _timed(encoded.decoded)
                labels = {name: segmenter.decode(stored, vocabulary).mask for name, vocabulary in vocabularies.items()}
                so_far.size_bytes.append(len(encoded.data))
                so_far.errors.append(encoded.max_error)
                so_far.encode_s.append(encode_s)
                so_far.decode_s.append(decode_s)
            so_far.matrix.add(truth, labels["msrc16"])
            for name, mask in labels.items():
                so_far.equal[name].append(float((mask == exact[name]).mean()))
    return [_row(codec, found) for codec, found in measured.items()]


def measure_encoding(folder: Path | None, device: str, rounds: int) -> list[Row]:
    """Rows for CLIP ViT-B/16 with DINO ViT-B/8, seeded, in bfloat16, on one image of 500 x 375 pixels.

    folder: as for `measure_codecs`; its first photograph is resized. None: a drawn scene instead.
    """
    image = drawn_images(1, (375, 500))[0] if folder is None else _photograph(folder)
    config = SegmenterConfig(ModelConfig(dtype="bfloat16"))
    segmenter = Segmenter(seeded_clip(), seeded_proxy(), config, device=device)

    def run_networks() -> DenseFeatures:
        return segmenter.encode_batch([image])[0].on_cpu()

    dense, networks_s = _median_timed(run_networks, rounds)
    rows = []
    for codec in CODECS:
        encoded, encode_s = _median_timed(functools.partial(EncodedFeatures.of, dense, codec), rounds)
        _, decode_s = _median_timed(encoded.decoded, rounds)
        rows.append(
            {
                "codec": codec,
                "stored as": encoded.codec,
                "KiB": f"{len(encoded.data) / 1024:.1f}",
                "largest error": f"{encoded.max_error:.5f}",
                "networks, ms": f"{1000 * networks_s:.0f}",
                "encode, ms": f"{1000 * encode_s:.1f}",
                "share of networks": f"{100 * encode_s / networks_s:.1f} %",
                "decode, ms": f"{1000 * decode_s:.1f}",
            }
        )
    return rows


def mixed_vocabulary(vocabulary: Vocabulary, count: int, seed: int = 0) -> Vocabulary:
    """`count` queries of a vocabulary, one a class. If it has fewer, the others are random mixtures of two of them."""
    if vocabulary.embeddings is None:
        raise ValueError(f"vocabulary {vocabulary.name!r} has no embeddings")
    rng = np.random.default_rng(seed)
    rows = rng.permutation(vocabulary.embeddings)[:count]
    first = rng.integers(len(rows), size=count - len(rows))
    second = (first + rng.integers(1, len(rows), size=len(first))) % len(rows)  # another one
    shares = rng.uniform(0.2, 0.8, size=(len(first), 1))
    mixtures = shares * rows[first] + (1 - shares) * rows[second]
    names = [f"query {index}" for index in range(count)]
    return Vocabulary.from_names(names).with_embeddings(np.concatenate([rows, mixtures]).astype(np.float32))


def _photograph(folder: Path) -> npt.NDArray[np.uint8]:
    with Image.open(min((folder / "msrc16-dev" / "images").iterdir())) as image:
        return np.asarray(image.convert("RGB").resize((500, 375), Image.Resampling.BICUBIC))


def _row(codec: str, measured: Measured) -> Row:
    times = {"encode, ms": measured.encode_s, "decode, ms": measured.decode_s}
    return {
        "codec": codec,
        "KiB an image": f"{statistics.mean(measured.size_bytes) / 1024:.1f}",
        "bound": f"{CODECS[codec].max_error:g}" if codec in CODECS else "",
        "largest error": f"{max(measured.errors):.5f}" if measured.errors else "",
        **{f"labels equal, {name}": f"{100 * statistics.mean(each):.2f} %" for name, each in measured.equal.items()},
        "mIoU": f"{measured.matrix.mean_iou:.2f}",
        **{name: f"{1000 * statistics.median(seconds):.1f}" if seconds else "" for name, seconds in times.items()},
    }


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _median_timed(work: Callable[[], T], rounds: int) -> tuple[T, float]:
    """The result of `work` and its median time, after one run to warm up."""
    results, times = zip(*(_timed(work) for _ in range(rounds + 1)), strict=True)
    return results[-1], statistics.median(times[1:])
