"""Objects in an object store: the same requests and the same errors for every kind."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from proxyclip.storage.clients import BROKEN_CREDENTIALS, NO_BUCKET, NOT_ALLOWED, advice, error_code, open_client
from proxyclip.storage.entry import TEMPORARY, Entry, StorageError, public_uri
from proxyclip.storage.retry import carry, may_pass, persist

T = TypeVar("T")


@functools.lru_cache(maxsize=32)
def remote(uri: str, pid: int) -> Remote:
    """One connection pool per URI and process, shared by its threads."""
    return Remote(uri)


class Remote:
    """An object store. Requests that fail for a moment are repeated here, or by the store's own client."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.is_conditional = False  # becomes True when the store has proved that it supports conditional writes
        try:
            self.client = open_client(uri)
        except (ValueError, ImportError) as error:
            raise ValueError(
                f"storage: {public_uri(uri)}: {error}; use a path or a URI like s3://bucket/prefix."
            ) from error
        self.fs = self.client.fs
        self.root = self.fs._strip_protocol(uri).rstrip("/")

    def read(self, key: str) -> bytes:
        return bytes(self._ask(key, lambda: self.fs.cat_file(self._path(key), **self.client.read_options)))

    def open(self, key: str) -> BinaryIO:
        size_bytes = self.stat(key).size_bytes
        return io.BufferedReader(_Object(self, key, size_bytes), 2**16)

    def read_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes from start to before end."""
        return bytes(self._ask(key, lambda: self.fs.cat_file(self._path(key), start=start, end=end)))

    def write(self, key: str, data: bytes) -> None:
        with self._bucket_exists():
            self._ask(key, lambda: self.fs.pipe_file(self._path(key), data))

    def write_file(self, key: str, path: Path) -> None:
        with self._bucket_exists():
            self._ask(key, lambda: self.fs.put_file(str(path), self._path(key)))

    def create(self, key: str, data: bytes) -> bool:
        if not self.is_conditional:
            self._check_conditional(key, data)
        if self._put_if_absent(key, data):
            return True
        # An earlier try of ours may have succeeded while its answer was lost.
        return self.read(key) == data

    def check_writable(self) -> None:
        """Create an object, try to create it once more, and remove it."""
        key = f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            self._put_if_absent(key, b"")
        except PermissionError as error:
            raise PermissionError(
                f"storage: {public_uri(self.uri)}: cannot create objects: {error.strerror}; give these credentials "
                "the right to write there, or choose another prefix."
            ) from error
        try:
            self._check_conditional(key, b"")
        finally:
            with contextlib.suppress(PermissionError):  # a run itself never deletes, and may lack the right to
                self.delete(key)

    def _put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            with self._bucket_exists():
                self._ask(key, lambda: self.fs.pipe_file(self._path(key), data, mode="create"))
        except FileExistsError:
            return False
        return True

    @contextlib.contextmanager
    def _bucket_exists(self) -> Iterator[None]:
        """What a write does not find is the bucket."""
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(
                f"storage: {public_uri(self.uri)}: there is no such bucket{advice(self.client, 'NoSuchBucket')}"
            ) from error

    def _check_conditional(self, key: str, data: bytes) -> None:
        """Some stores accept the condition but overwrite. To find out, write the object's own content again."""
        try:
            data = self.read(key)
        except FileNotFoundError:
            self._put_if_absent(key, data)
            data = self.read(key)
        if self._put_if_absent(key, data):
            raise StorageError(
                f"storage: {public_uri(self.uri)}: the store ignores conditional writes ({self.client.condition}) "
                "and overwrites existing objects, so two runs could destroy each other's files; use a store that "
                "supports them, or a disk."
            )
        self.is_conditional = True

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(key, lambda: self.fs.rm_file(self._path(key)))

    def stat(self, key: str) -> Entry:
        info = self._ask(key, lambda: self.fs.info(self._path(key)))
        if info["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, "this is a prefix, not an object", self._name(key))
        return self._entry(info)

    def list(self, folder: str) -> Iterator[Entry]:
        base = self._path(folder) if folder else self.root
        for info in self.client.find(base, functools.partial(self._ask, folder)):
            name = info["name"]
            is_object = info["type"] == "file" and name.startswith(base + "/") and not name.endswith("/")
            if is_object and not name.rpartition("/")[2].startswith(TEMPORARY):
                yield self._entry(info)

    def _ask(self, key: str, request: Callable[[], T]) -> T:
        with self._explained(key):
            return persist(request, self.client.attempts)

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"

    def _name(self, key: str) -> str:
        return f"{public_uri(self.uri)}/{key}"

    def _entry(self, info: dict[str, Any]) -> Entry:
        tags = (info.get(name) for name in ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "mtime", "created"))
        etag = str(next((tag for tag in tags if tag), "")).strip('"')
        times = (info.get(name) for name in ("LastModified", "last_modified", "mtime", "updated", "created"))
        modified: Any = next((time for time in times if time), 0)
        if isinstance(modified, datetime):
            modified = modified.timestamp()
        modified_s = int(modified) if isinstance(modified, (int, float)) else 0
        return Entry(info["name"][len(self.root) + 1 :], int(info["size"] or 0), etag, modified_s)

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn errors of fsspec and its stores into errors of one key or, as StorageError, of the storage."""
        try:
            yield
        except Exception as error:
            code = error_code(error)
            if isinstance(error, FileExistsError) or code == "PreconditionFailed":
                raise FileExistsError(errno.EEXIST, "the object exists already", self._name(key)) from error
            if isinstance(error, FileNotFoundError) and code not in NO_BUCKET:
                raise FileNotFoundError(errno.ENOENT, "no such object", self._name(key)) from error
            if isinstance(error, IsADirectoryError):
                raise
            if code in NOT_ALLOWED or (isinstance(error, PermissionError) and code not in BROKEN_CREDENTIALS):
                detail = f"access denied ({code})" if code else "access denied"
                raise PermissionError(errno.EACCES, detail, self._name(key)) from error
            kind = code or type(error).__name__
            what_to_do = advice(self.client, kind)
            if self.client.attempts > 1 and may_pass(error):
                what_to_do = f" (all tries failed, {self.client.attempts} at most)" + what_to_do
            text = " ".join(str(error).split())[:300]
            raise StorageError(f"storage: {public_uri(self.uri)}: {kind}: {text}{what_to_do}") from error


class _Object(io.RawIOBase):
    """A file object that reads parts of an object. fsspec's own does not retry.

    Parquet readers read it from their own threads; the retries count for the block that opened it.
    """

    def __init__(self, remote: Remote, key: str, size_bytes: int) -> None:
        self._read_range = carry(remote.read_range)
        self._key, self._size_bytes = key, size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size_bytes)
        if end <= self._position:
            return 0
        data = self._read_range(self._key, self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
