"""Relabelling from stored features against the first pass, against a plain loop, and with several vocabularies."""

from __future__ import annotations

import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.numpy import save_file

from performance.seeded import drawn_images, seeded_clip, seeded_proxy, seeded_vocabulary
from performance.tables import Row
from proxyclip.config import ModelConfig, SegmenterConfig, fingerprint
from proxyclip.dataset.features.record import begin_features
from proxyclip.dataset.features.shards import write_features
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.rows import ImageFeatures
from proxyclip.dataset.run_record import RunRecord, begin_run, write_vocabulary
from proxyclip.images.listing import ImageRef
from proxyclip.images.sizes import resize_image
from proxyclip.models.features import EncodedFeatures
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.features import features_row
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.recipe import feature_record, recipe_of
from proxyclip.pipeline.relabel.graph import RelabelConfig, TargetConfig
from proxyclip.pipeline.relabel.opening import Relabelling, open_relabelling
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.relabel.run import execute
from proxyclip.pipeline.relabel.runner import RayRunner
from proxyclip.pipeline.relabel.stage import RelabelShards
from proxyclip.pipeline.stages.decode import decode_images
from proxyclip.pipeline.stages.write import Receipt
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

IMAGE_HW = (375, 500)
QUERIES = (21, 150, 847)
SHARD_SIZE = 64
_WEIGHTS = {"clip": "seeded", "proxy": "seeded"}


class Source:
    """An output that keeps features of `num_images` images, which repeat those of a few real or drawn ones."""

    def __init__(self, folder: Path, num_images: int, photographs: Path | None) -> None:
        folder.mkdir()
        self.folder = folder
        self.images = _images(photographs)
        self.segmenter = Segmenter(seeded_clip(), seeded_proxy(), SegmenterConfig(ModelConfig(dtype="bfloat16")))
        self.features = self.segmenter.encode_batch(self.images)
        self.storage = Storage(str(folder / "source"))
        rows = [features_row("", "", EncodedFeatures.of(each)) for each in self.features]
        self.kb = statistics.mean(len(row.bytes) for row in rows) / 1e3
        options = LabelOptions(str(folder / "images"), self.storage.uri, add_features=True)
        recipe = recipe_of(self.segmenter.config, _WEIGHTS, None, 1)
        begin_run(self.storage, RunRecord(options.input, recipe, fingerprint(recipe)), None)
        begin_features(self.storage, feature_record(options, self.segmenter.config, _WEIGHTS, "compact"))
        manifest = Manifest(self.storage)
        manifest.extend_plan([ImageRef(f"{number:06d}.jpg", 1, "1") for number in range(num_images)], SHARD_SIZE)
        for part in manifest.pending():
            for shard, refs in manifest.read_range(part):
                write_features(self.storage, shard, list(_repeated(rows, refs)), [])

    def options(self, output: str, num_queries: int, *names: str) -> RelabelOptions:
        """Relabel into a folder with vocabularies whose queries give these images many different labels."""
        grids = torch.cat([each.features[0] for each in self.features])
        vocabulary = seeded_vocabulary(grids, num_queries)
        embeddings = self.folder / f"{num_queries}.safetensors"
        save_file({"embeddings": np.asarray(vocabulary.embeddings)}, embeddings)
        files = [self.folder / f"{name}.txt" for name in names or [str(num_queries)]]
        for file in files:
            file.write_text("\n".join(vocabulary.class_names))
        return RelabelOptions(
            source=self.storage.uri,
            output=str(self.folder / output),
            vocabulary=tuple(map(str, files)),
            embeddings=(str(embeddings),) * len(files),
            concurrency=1,
        )


def measure_relabel(folder: Path, rounds: int, photographs: Path | None) -> list[Row]:
    """CPU time an image: the first pass in bfloat16, and relabelling in one process with each number of classes."""
    source = Source(folder, rounds * SHARD_SIZE, photographs)
    stages = {count: _stage(source, count) for count in QUERIES}
    vocabulary = open_relabelling(source.options("labels-21", 21)).targets[0].vocabulary
    first: list[float] = []
    again: dict[int, list[float]] = {count: [] for count in QUERIES}
    for number in range(rounds):  # by turns, because a machine's speed changes over minutes
        first.append(_cpu_s(lambda: _first_pass(source, vocabulary)) / len(source.images))
        for count, stage in stages.items():
            again[count].append(_cpu_s(partial(stage, number)) / SHARD_SIZE)
    first_s = statistics.median(first)
    rows = [{"": "first pass, bfloat16, 21 classes", "CPU ms an image": f"{1e3 * first_s:.0f}", "of the first": "1"}]
    for count in QUERIES:
        each = statistics.median(again[count])
        rows.append(
            {
                "": f"relabel, {count} classes",
                "CPU ms an image": f"{1e3 * each:.1f}",
                "of the first": f"1/{first_s / each:.0f}",
            }
        )
    return rows


def measure_pipeline(folder: Path, num_images: int, photographs: Path | None) -> list[Row]:
    """Images/s of relabelling through Ray Data with one actor, against a plain loop; then three vocabularies."""
    source = Source(folder, num_images, photographs)
    torch.set_num_threads(1)
    stage = _stage(source, 21)
    shards = num_images // SHARD_SIZE
    stage(0)
    started = time.perf_counter()
    for shard in range(1, 4):
        stage(shard)
    loop = 3 * SHARD_SIZE / (time.perf_counter() - started)
    one = _Timed.of(source.options("one", 21))
    before = _peak_mb()
    rate = SHARD_SIZE / one.seconds_a_receipt
    three = _Timed.of(source.options("three", 21, "a", "b", "c"))
    grown = _peak_mb() - before
    columns = ("", "images/s", "of the loop", "note")
    table = [
        ("plain loop, one process", f"{loop:.1f}", "", f"{source.kb:.0f} KB an image"),
        ("pipeline, one actor", f"{rate:.1f}", f"{100 * rate / loop:.0f} %", f"{shards} shards of {SHARD_SIZE}"),
        (
            "three vocabularies in one command",
            f"{SHARD_SIZE / (3 * three.seconds_a_receipt):.1f}",
            "",
            f"{3 * three.seconds_a_receipt / one.seconds_a_receipt:.2f} times the time of one",
        ),
        ("driver", "", "", f"its peak memory grew by {grown:.0f} MB over both"),
    ]
    return [dict(zip(columns, row, strict=True)) for row in table]


class _Timed(RayRunner):
    """Notes when receipts come."""

    def __init__(self, run: Relabelling) -> None:
        super().__init__(run)
        self.times: list[float] = []

    def relabel(self, pending: dict[int, list[int]]) -> Iterator[tuple[int, Receipt]]:
        for number, receipt in super().relabel(pending):
            self.times.append(time.perf_counter())
            yield number, receipt

    @property
    def seconds_a_receipt(self) -> float:
        """Between the first receipt and the last."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)

    @classmethod
    def of(cls, options: RelabelOptions) -> _Timed:
        runners: list[_Timed] = []

        def make(run: Relabelling) -> _Timed:
            runners.append(cls(run))
            return runners[0]

        for output, summary in execute(open_relabelling(options), make).items():
            if summary.exit_code:
                raise RuntimeError(f"{output}: {summary.stopped or summary.shard_errors}")
        return runners[0]


def _first_pass(source: Source, vocabulary: Vocabulary) -> None:
    features = source.segmenter.encode_batch(source.images)
    for labels in decode_images(source.segmenter, features, vocabulary, 4):
        labels.compressed("", vocabulary.colours)


def _stage(source: Source, num_queries: int) -> Callable[[int], None]:
    """What relabels a shard in this process."""
    run = open_relabelling(source.options(f"labels-{num_queries}", num_queries))
    (target,) = run.targets
    write_vocabulary(target.storage, target.vocabulary)
    targets = (TargetConfig(target.storage.uri, target.config.decode, None),)
    stage = RelabelShards(RelabelConfig(source.storage.uri, run.input, target.config.windows, targets, 4))

    def relabel(shard: int) -> None:
        receipts = stage(pa.table({"shard": [shard], "targets": [[0]]}))
        if (error := receipts["error"][0].as_py()) is not None:
            raise RuntimeError(error)

    return relabel


def _images(photographs: Path | None) -> list[np.ndarray]:
    if photographs is None:
        return list(drawn_images(4, IMAGE_HW))
    files = sorted(photographs.iterdir())
    some = files[:: len(files) // 4][:4]
    return [resize_image(np.asarray(Image.open(file).convert("RGB")), IMAGE_HW) for file in some]


def _repeated(rows: list[ImageFeatures], refs: list[ImageRef]) -> Iterator[ImageFeatures]:
    for number, ref in enumerate(refs):
        yield dataclasses.replace(rows[number % len(rows)], uri=ref.uri, etag=ref.etag)


def _cpu_s(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
