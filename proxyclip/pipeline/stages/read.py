"""Read: planned shards to rows of encoded images. One row is one shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.plan import ShardRange
from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.images import FETCHES_AT_ONCE, Images, open_images
from proxyclip.images.ref import GONE, ImageRef
from proxyclip.storage.retry import count_retries
from proxyclip.storage.store import Storage, StorageError

SHARD_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("uris", pa.list_(pa.string())),
        ("etags", pa.list_(pa.string())),  # of the images as they were planned
        ("data", pa.list_(pa.large_binary())),  # null if fetching failed
        ("fetch_errors", pa.list_(pa.string())),  # null if it did not
        ("error", pa.string()),  # a fault of the storage, not of an image: then nothing was fetched
        ("retries", pa.int64()),  # storage requests that were sent again
    ]
)


class Fetched(NamedTuple):
    """The bytes of an image, or the reason why there are none."""

    data: bytes | None
    error: str | None


class ShardSource(Datasource):
    """The pending shards of a run. Read tasks hold ranges of the plan, never keys of images."""

    def __init__(self, input_uri: str, output_uri: str, ranges: list[ShardRange]) -> None:
        super().__init__()
        self._input = input_uri
        self._output = output_uri
        self._ranges = ranges

    @property
    def num_tasks(self) -> int:
        """Read tasks, one per range."""
        return len(self._ranges)

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before reading."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task per range."""
        return [
            ReadTask(
                partial(read_shards, self._input, self._output, shards),
                BlockMetadata(num_rows=shards.num_shards, size_bytes=None, input_files=None, exec_stats=None),
                schema=SHARD_SCHEMA,
                per_task_row_limit=per_task_row_limit,
            )
            for shards in self._ranges
        ]


def read_shards(input_uri: str, output_uri: str, shards: ShardRange) -> Iterator[pa.Table]:
    """Fetch the images of a range of planned shards: one table with one row per shard."""
    try:
        with count_retries() as retries:
            images = open_images(input_uri)
            planned = list(Manifest(Storage(output_uri)).read_range(shards))
    except StorageError as problem:
        for index, shard in enumerate(shards.shards):
            yield _row(shard, retries=0 if index else retries.count, error=str(problem))
        return
    first = retries.count  # reading the plan belongs to no shard; the first one reports it
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        for shard, refs in planned:
            fetched, error = [], None
            with count_retries() as retries:
                try:
                    fetched = _fetch_all(pool, images, refs)
                    _refuse_outage(fetched)
                except StorageError as problem:
                    refs, fetched, error = [], [], str(problem)
            yield _row(shard, refs, fetched, first + retries.count, error)
            first = 0


def _row(
    shard: int,
    refs: Sequence[ImageRef] = (),
    fetched: Sequence[Fetched] = (),
    retries: int = 0,
    error: str | None = None,
) -> pa.Table:
    row = {
        "shard": shard,
        "uris": [image.uri for image in refs],
        "etags": [image.etag for image in refs],
        "data": [data for data, _ in fetched],
        "fetch_errors": [reason for _, reason in fetched],
        "error": error,
        "retries": retries,
    }
    return pa.table({name: [value] for name, value in row.items()}, schema=SHARD_SCHEMA)


def _refuse_outage(fetched: list[Fetched]) -> None:
    """Raise StorageError if several images all fail for the same reason: then access is broken, not the images."""
    reasons = {reason for _, reason in fetched}
    if len(fetched) > 1 and len(reasons) == 1 and not reasons & {None, GONE}:
        raise StorageError(f"none of the {len(fetched)} images of the shard could be read: {reasons.pop()}")


def _fetch_all(pool: Executor, images: Images, refs: Sequence[ImageRef]) -> list[Fetched]:
    """All images of a shard, in order."""
    found = images.fetch(pool, refs)
    return [Fetched(None, each.reason) if isinstance(each, ImageError) else Fetched(each, None) for each in found]
