"""Stored features: rows of an output and single files, as features that decode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.commits import read_commit, read_commits
from proxyclip.dataset.features.record import features_manifest, require_features
from proxyclip.dataset.features.shards import read_features
from proxyclip.dataset.rows import FEATURES, ImageFeatures, features_table, parquet_bytes
from proxyclip.dataset.shards import read_columns
from proxyclip.dataset.validate import check_table
from proxyclip.models.features import DenseFeatures, EncodedFeatures, StoredFeatures
from proxyclip.models.windows import AxisPlan, WindowPlan
from proxyclip.storage.store import Storage


def features_row(uri: str, etag: str, features: EncodedFeatures) -> ImageFeatures:
    """The stored row of an image's features."""
    plan = features.plan
    return ImageFeatures(
        uri=uri,
        etag=etag,
        height=plan.y.original,
        width=plan.x.original,
        resized_height=plan.y.resized,
        resized_width=plan.x.resized,
        windows={"y": _stored_axis(plan.y), "x": _stored_axis(plan.x), "whole": plan.whole},
        grid_height=features.grid_hw[0],
        grid_width=features.grid_hw[1],
        codec=features.codec,
        max_error=features.max_error,
        bytes=features.data,
    )


def features_from(row: ImageFeatures) -> StoredFeatures:
    """The features of a row. Raises ValueError, with the image's uri, if they are damaged."""
    plan = WindowPlan(
        _axis(row.height, row.resized_height, row.windows["y"]),
        _axis(row.width, row.resized_width, row.windows["x"]),
        row.windows["whole"],
    )
    grid_hw = row.grid_height, row.grid_width
    try:
        return EncodedFeatures(plan, grid_hw, row.codec, row.bytes, row.max_error).decoded()
    except ValueError as error:
        raise ValueError(f"{row.uri}: {error}") from error


def save_features(features: DenseFeatures, path: str | Path, codec: str = "compact") -> None:
    """Write the features of one image to a Parquet file. codec: "compact" or "exact"."""
    row = features_row(Path(path).stem, "", EncodedFeatures.of(features, codec))
    folder, name = _folder_and_name(path)
    folder.write(name, parquet_bytes(features_table([row])))


def load_features(path: str | Path) -> StoredFeatures:
    """The features in a file of `save_features`. Raises ValueError, with the path, if it is damaged or another file."""
    folder, name = _folder_and_name(path)
    data = folder.read(name)
    try:
        (row,) = check_table(pq.read_table(pa.BufferReader(data)), FEATURES, name).to_pylist()
        return features_from(ImageFeatures(**row))
    except (ValueError, TypeError, RuntimeError, OSError, pa.ArrowException) as error:  # as damage happens to hit
        raise ValueError(f"{path}: the file is damaged, or save_features did not write it: {error}") from error


def open_features(output: str) -> FeatureReader:
    """The features that an output keeps, by uri. Raises FileNotFoundError, with what to do, if it keeps none."""
    return FeatureReader(Storage(output))


class FeatureReader(Mapping[str, StoredFeatures]):
    """The features of an output by uri, without images that failed or are gone.

    It reads the plan when it is made, and the file of a shard when one of its images is asked for; it keeps the last.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        require_features(storage)
        manifest = features_manifest(storage)
        self._commits = manifest.commits
        done = manifest.committed()
        failed = {
            (commit.shard, uri)
            for commit in read_commits(self._commits, done)
            if commit.failed
            for uri in read_columns(self._commits, commit, "failures", ["uri"])["uri"].to_pylist()
        }
        rows = (history[-1] for history in manifest.plan.histories(manifest.plan.parts()))
        self._shards = {
            row.uri: row.shard
            for row in rows
            if row.shard is not None and row.shard in done and (row.shard, row.uri) not in failed
        }
        self._last: tuple[int, dict[str, ImageFeatures]] = (-1, {})

    def __getitem__(self, uri: str) -> StoredFeatures:
        shard = self._shards[uri]
        if self._last[0] != shard:
            images, _ = read_features(self._storage, read_commit(self._commits, shard))
            self._last = shard, {image.uri: image for image in images}
        return features_from(self._last[1][uri])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)


def _stored_axis(axis: AxisPlan) -> dict[str, Any]:
    return {
        "starts": list(axis.starts),
        "length": axis.length,
        "pad_before": axis.pad_before,
        "pad_after": axis.pad_after,
    }


def _axis(original: int, resized: int, stored: Mapping[str, Any]) -> AxisPlan:
    return AxisPlan(
        original, resized, tuple(stored["starts"]), stored["length"], stored["pad_before"], stored["pad_after"]
    )


def _folder_and_name(path: str | Path) -> tuple[Storage, str]:
    folder, slash, name = str(path).rpartition("/")
    return Storage(folder or slash or "."), name
