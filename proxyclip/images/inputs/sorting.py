"""The listing of an input: images in order of uri, sorted on disk if they are many."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from proxyclip.images.ref import ImageRef

SCHEMA = pa.schema([("uri", pa.string()), ("size_bytes", pa.int64()), ("etag", pa.string())])

# So many rows, or so many bytes of them, are sorted in memory. What is more goes to temporary files.
SORTED_AT_ONCE, SORTED_BYTES = 2**20, 2**28
# Rows of a batch: of each sorted file, one is in memory while they are merged.
_BATCH_ROWS = 2**12


@dataclass(frozen=True)
class Listing:
    """The images of an input, each uri once, in order of uri (of its UTF-8 bytes, which is Python's order of text).

    A large one lies in a temporary file without a name, which is gone when the process ends, however it ends. It can be
    read again and again, but not by two at a time.
    num_repeated: rows left out because an earlier one had their uri. repeated: the first such uri.
    """

    source: list[pa.RecordBatch] | IO[bytes]
    num_images: int
    num_repeated: int = 0
    repeated: str | None = None

    def __len__(self) -> int:
        return self.num_images

    def __iter__(self) -> Iterator[ImageRef]:
        for batch in _batches(self.source):
            yield from map(ImageRef, *(column.to_pylist() for column in batch.columns))


def sorted_listing(batches: Iterable[pa.RecordBatch]) -> Listing:
    """Sort rows of SCHEMA by uri. Of rows with the same uri the first counts.

    Memory: SORTED_BYTES a few times over, whatever the number of rows.
    """
    runs: list[IO[bytes]] = []
    waiting: list[pa.RecordBatch] = []
    num_rows = num_bytes = 0
    for batch in batches:
        waiting.append(batch)
        num_rows, num_bytes = num_rows + batch.num_rows, num_bytes + batch.nbytes
        if num_rows >= SORTED_AT_ONCE or num_bytes >= SORTED_BYTES:
            runs.append(_written(_sorted(waiting)))
            waiting, num_rows, num_bytes = [], 0, 0
    rows = _sorted(waiting)
    unique = _Unique()
    if not runs:
        found = [unique.of(batch) for batch in rows]
        return Listing(found, sum(batch.num_rows for batch in found), unique.num_repeated, unique.repeated)
    merged = _written(unique.of(batch) for batch in _merged([*map(_batches, runs), iter(rows)]))
    num_images = sum(batch.num_rows for batch in _batches(merged))
    return Listing(merged, num_images, unique.num_repeated, unique.repeated)


class _Unique:
    """Leaves out rows whose uri was there before; they come in order."""

    def __init__(self) -> None:
        self.num_repeated = 0
        self.repeated: str | None = None
        self._last: str | None = None

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not batch.num_rows:
            return batch
        uris = batch.column(0)
        is_new = pc.not_equal(uris[1:], uris[:-1])
        first_is_new = pa.array([uris[0].as_py() != self._last])
        self._last = uris[-1].as_py()
        keep = pa.concat_arrays([first_is_new, is_new])
        if keep.true_count == batch.num_rows:
            return batch
        self.num_repeated += batch.num_rows - keep.true_count
        if self.repeated is None:
            self.repeated = uris.filter(pc.invert(keep))[0].as_py()
        return batch.filter(keep)


def _sorted(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The rows of all batches in order, in batches of _BATCH_ROWS. Rows with the same uri keep their order."""
    table = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
    if not table.num_rows:
        return []
    uris = table["uri"].chunk(0)
    if not pc.all(pc.less_equal(uris[:-1], uris[1:])).as_py():  # an empty or sorted table gives None or True
        table = table.take(pc.array_sort_indices(uris))
    found: list[pa.RecordBatch] = table.to_batches(_BATCH_ROWS)
    return found


def _merged(runs: list[Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """The rows of sorted runs, in order. Of rows with the same uri, those of an earlier run come first."""
    heads = [(run, next(run, None)) for run in runs]
    current = [(run, batch) for run, batch in heads if batch is not None]
    while current:
        # Up to the smallest last uri of the batches in memory, no later batch has a row to add.
        fence = min(batch.column(0)[-1].as_py() for _, batch in current)
        taken, left = [], []
        for run, batch in current:
            count = _count_up_to(batch.column(0), fence)
            taken.append(batch.slice(0, count))
            rest: pa.RecordBatch | None = batch.slice(count)
            while rest is not None and not rest.num_rows:
                rest = next(run, None)
                # A row equal to the fence may go on in the run's next batch.
                if rest is not None and (more := _count_up_to(rest.column(0), fence)):
                    taken.append(rest.slice(0, more))
                    rest = rest.slice(more)
            if rest is not None:
                left.append((run, rest))
        yield from _sorted([batch for batch in taken if batch.num_rows])
        current = left


def _count_up_to(uris: pa.Array, fence: str) -> int:
    return bisect_right(range(len(uris)), fence, key=lambda index: uris[index].as_py())


def _written(batches: Iterable[pa.RecordBatch]) -> IO[bytes]:
    """A temporary file with the batches."""
    file = tempfile.TemporaryFile(prefix="proxyclip-listing-")  # noqa: SIM115  (open as long as its listing)
    with pa.ipc.new_stream(file, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
        for batch in batches:
            stream.write_batch(batch)
    file.flush()
    return file


def _batches(source: list[pa.RecordBatch] | IO[bytes]) -> Iterator[pa.RecordBatch]:
    if isinstance(source, list):
        yield from source
        return
    source.seek(0)
    with pa.ipc.open_stream(source) as stream:
        yield from stream
