"""Outputs with real masks, labelled by a rule instead of networks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from proxyclip.dataset.commits import Commit, read_commit
from proxyclip.dataset.features.record import FeatureRecord, begin_features, features_manifest
from proxyclip.dataset.features.shards import write_features
from proxyclip.dataset.layout import commit_key, data_key
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.masks import confidence_to_png, mask_to_png
from proxyclip.dataset.rows import Failure, ImageFeatures, LabelledImage, parquet_bytes
from proxyclip.dataset.run_record import RunRecord, begin_run
from proxyclip.dataset.shards import read_table, write_shard
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.palette import default_palette

NAMES = ["sky", "tree", "horse"]
RECORD = RunRecord("/data", {"confidence_stride": 4}, "fingerprint")
FEATURES = FeatureRecord("compact", 512, {"model": {"clip": "ViT-B-16"}}, {"preset": "ours"})


def images(count: int, start: int = 0, etag: str = "1") -> list[ImageRef]:
    return [ImageRef(f"{number:03d}.jpg", 10, etag) for number in range(start, start + count)]


def begin(storage: Storage, record: RunRecord = RECORD) -> Manifest:
    """A run that has nothing planned yet."""
    begin_run(storage, record, {"name": "ours", "classes": NAMES})
    return Manifest(storage)


def run(storage: Storage, listing: list[ImageRef]) -> Manifest:
    """What a run does, from plan to statistics, in its order, with three images per shard."""
    manifest = begin(storage)
    label_pending(manifest)
    manifest.extend_plan(listing, 3)
    label_pending(manifest)
    manifest.compact()
    if not manifest.has_class_stats():
        manifest.write_class_stats()
    return manifest


def label_pending(manifest: Manifest, only: Collection[int] | None = None) -> None:
    """Label the pending shards, or some of them."""
    for task in manifest.pending():
        for shard, images in manifest.read_range(task):
            if only is None or shard in only:
                label_shard(manifest.storage, shard, [image.uri for image in images])


def label_shard(storage: Storage, shard: int, uris: list[str]) -> Commit:
    """Every seventh image fails; the masks of the others follow from their names."""
    labelled = [_labelled(uri) for uri in uris if not _fails(uri)]
    return write_shard(storage, shard, labelled, _failures(uris), NAMES)


def add_features(storage: Storage, only: Collection[int] | None = None) -> Manifest:
    """Make the features that are missing, or those of some shards, as a run with --add-features does."""
    begin_features(storage, FEATURES)
    manifest = features_manifest(storage)
    for task in manifest.pending():
        for shard, images in manifest.read_range(task):
            if only is None or shard in only:
                rows = [features_row(image) for image in images if not _fails(image.uri)]
                write_features(storage, shard, rows, _failures([image.uri for image in images]))
    manifest.compact()
    return manifest


def features_row(image: ImageRef) -> ImageFeatures:
    """Features of an image of 200 x 400 pixels with two windows. Its bytes are no codec's."""
    axis = {"length": 336, "pad_before": 0, "pad_after": 0}
    return ImageFeatures(
        uri=image.uri,
        etag=image.etag,
        height=200,
        width=400,
        resized_height=336,
        resized_width=600,
        windows={"y": {"starts": [0], **axis}, "x": {"starts": [0, 264], **axis}, "whole": False},
        grid_height=21,
        grid_width=21,
        codec="compact",
        max_error=0.0625,
        bytes=image.uri.encode(),
    )


def _fails(uri: str) -> bool:
    return int(uri[:3]) % 7 == 6


def _failures(uris: Sequence[str]) -> list[Failure]:
    return [Failure(uri, "decode", "decode_failed", "no image") for uri in uris if _fails(uri)]


def _labelled(uri: str) -> LabelledImage:
    rng = np.random.default_rng(int(uri[:3]))
    mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), (9, 6 + int(uri[:3]) % 5), p=[0.4, 0.3, 0.2, 0.1])
    classes, pixels = np.unique(mask[mask != 255], return_counts=True)
    confidence = rng.random(len(classes))
    return LabelledImage(
        uri=uri,
        height=mask.shape[0],
        width=mask.shape[1],
        mask=mask_to_png(mask, default_palette(len(NAMES))),
        confidence=confidence_to_png(np.zeros((3, -(-mask.shape[1] // 4)), np.uint8)),
        classes=classes.tolist(),
        pixels=pixels.tolist(),
        class_confidence=confidence.tolist(),
        mean_confidence=float((confidence * pixels).sum() / pixels.sum()),
        ignored=int((mask == 255).sum()),
    )


def forge(storage: Storage, shard: int, kind: str, rows: pa.Table) -> None:
    """Put other rows into a shard, with a commit that agrees."""
    forge_bytes(storage, shard, kind, parquet_bytes(rows), rows.num_rows)


def forge_bytes(storage: Storage, shard: int, kind: str, data: bytes, num_rows: int) -> None:
    """Put another file into a shard, with a commit that agrees."""
    sha256 = hashlib.sha256(data).hexdigest()
    commit = read_commit(storage, shard)
    file = dataclasses.replace(
        commit.files[kind],
        key=data_key(kind, shard, sha256),
        rows=num_rows,
        size_bytes=len(data),
        sha256=sha256,
    )
    storage.write(file.key, data)
    counts = {"masks": "labelled", "features": "labelled", "failures": "failed"}
    changes = {counts[kind]: num_rows} if kind in counts else {}
    commit = dataclasses.replace(commit, files={**commit.files, kind: file}, **changes)
    commit = dataclasses.replace(commit, images=commit.labelled + commit.failed)
    storage.write(commit_key(shard), commit.to_json())


def rows_of(storage: Storage, shard: int, kind: str) -> pa.Table:
    return read_table(storage, read_commit(storage, shard), kind)


def with_cell(rows: pa.Table, row: int, column: str, value: object) -> pa.Table:
    """The rows with one value replaced."""
    values = rows.to_pylist()
    values[row][column] = value
    return pa.Table.from_pylist(values, rows.schema)


def files(storage: Storage) -> dict[str, bytes]:
    return {entry.key: storage.read(entry.key) for entry in storage.list()}
