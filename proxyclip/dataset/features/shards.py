"""The features of a shard: one file with a row an image, and one with the images that failed, under one commit."""

from __future__ import annotations

from collections.abc import Sequence

from proxyclip.dataset.commits import Commit
from proxyclip.dataset.features.record import features_of
from proxyclip.dataset.rows import Failure, ImageFeatures, failures, failures_table, features_table
from proxyclip.dataset.shards import commit_tables, read_table
from proxyclip.storage.store import Storage

_MEND = (
    "`proxyclip verify --repair` on the output with the features drops such shards, and its labelling command with "
    "--add-features makes them again."
)


def write_features(output: Storage, shard: int, images: Sequence[ImageFeatures], failed: Sequence[Failure]) -> Commit:
    """Write the features of a shard and commit them. Returns the commit that counts.

    The same rows, in any order, give the same bytes, keys and commit.
    """
    tables = {
        "features": features_table(sorted(images, key=lambda image: image.uri)),
        "failures": failures_table(sorted(failed, key=lambda failure: failure.uri)),
    }
    return commit_tables(features_of(output), shard, tables, len(images), len(failed))


def read_features(output: Storage, commit: Commit) -> tuple[list[ImageFeatures], list[Failure]]:
    """The features of a shard, and its images without.

    Raises FileNotFoundError or ValueError, with what to do, if a file is missing or was changed since it was committed.
    """
    kept = features_of(output)
    try:
        rows, failed = (read_table(kept, commit, kind, _MEND) for kind in ("features", "failures"))
    except FileNotFoundError as error:
        keys = ", ".join(file.key for file in commit.files.values() if not kept.exists(file.key))
        raise FileNotFoundError(f"features of shard {commit.shard}: {keys} is missing. {_MEND}") from error
    except ValueError as error:
        raise ValueError(f"features of shard {commit.shard}: {error}") from error
    return [ImageFeatures(**row) for row in rows.to_pylist()], failures(failed)
