"""Objects in an object store. The only module that uses fsspec."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import fsspec

from proxyclip.storage.entry import TEMPORARY, Entry, StorageError, public_uri
from proxyclip.storage.retry import carry, max_attempts, may_pass, persist, read_timeout_s

T = TypeVar("T")

# Keys in one page of a listing, as many as S3 allows.
PAGE_KEYS = 1000


@functools.lru_cache(maxsize=32)
def remote(uri: str, pid: int) -> Remote:
    """One connection pool per URI and process, shared by its threads."""
    return Remote(uri)


class Remote:
    """An object store.

    For S3 all retries happen here: botocore and s3fs try once. Only aiohttp repeats a request by itself, once, when
    a connection breaks. For other stores their own clients retry.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        protocol = uri.split("://")[0]
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        self.is_s3 = protocol in ("s3", "s3a")
        self.attempts = 1
        self.is_conditional = False  # becomes True when the store has proved that it supports conditional writes
        if self.is_s3:
            _check_endpoint()
            self.attempts = max_attempts()
            options["config_kwargs"] = {
                "retries": {"mode": "standard", "total_max_attempts": 1},
                "connect_timeout": min(10, read_timeout_s()),
                "read_timeout": read_timeout_s(),
                "max_pool_connections": 64,
            }
        try:
            self.fs = fsspec.filesystem(protocol, **options)
        except (ValueError, ImportError) as error:
            raise ValueError(
                f"storage: {public_uri(uri)}: {error}; use a path or a URI like s3://bucket/prefix."
            ) from error
        if self.is_s3:
            self.fs.retries = 1
        self.root = self.fs._strip_protocol(uri).rstrip("/")

    def read(self, key: str) -> bytes:
        # Without this s3fs asks for the size before every read: a second request for each image.
        options = {"max_concurrency": 1} if self.is_s3 else {}
        return bytes(self._ask(key, lambda: self.fs.cat_file(self._path(key), **options)))

    def open(self, key: str) -> BinaryIO:
        size_bytes = self.stat(key).size_bytes
        return io.BufferedReader(_Object(self, key, size_bytes), 2**16)

    def read_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes from start to before end."""
        return bytes(self._ask(key, lambda: self.fs.cat_file(self._path(key), start=start, end=end)))

    def write(self, key: str, data: bytes) -> None:
        self._ask(key, lambda: self.fs.pipe_file(self._path(key), data))

    def write_file(self, key: str, path: Path) -> None:
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
            self._ask(key, lambda: self.fs.pipe_file(self._path(key), data, mode="create"))
        except FileExistsError:
            return False
        return True

    def _check_conditional(self, key: str, data: bytes) -> None:
        """Some stores accept the condition but overwrite. To find out, write the object's own content again."""
        try:
            data = self.read(key)
        except FileNotFoundError:
            self._put_if_absent(key, data)
            data = self.read(key)
        if self._put_if_absent(key, data):
            raise StorageError(
                f"storage: {public_uri(self.uri)}: the store ignores conditional writes (If-None-Match: *) and "
                "overwrites existing objects, so two runs could destroy each other's files; use a store that "
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
        find = self._list_s3 if self.is_s3 else self._find
        for info in find(folder, base):
            name = info["name"]
            is_object = info["type"] == "file" and name.startswith(base + "/") and not name.endswith("/")
            if is_object and not name.rpartition("/")[2].startswith(TEMPORARY):
                yield self._entry(info)

    def _find(self, folder: str, base: str) -> Iterator[dict[str, Any]]:
        self.fs.invalidate_cache()  # some keep what they have listed, whatever they are told
        try:
            yield from self._ask(folder, lambda: self.fs.find(base, detail=True)).values()
        except FileNotFoundError:
            return

    def _list_s3(self, folder: str, base: str) -> Iterator[dict[str, Any]]:
        """Page by page, so that a failure costs one page and not the whole listing."""
        bucket, prefix, _ = self.fs.split_path(base)
        request = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else "", "MaxKeys": PAGE_KEYS}
        while True:
            page = self._ask(folder, lambda: self.fs.call_s3("list_objects_v2", **request))
            for found in page.get("Contents", []):
                yield {**found, "name": f"{bucket}/{found['Key']}", "size": found["Size"], "type": "file"}
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _ask(self, key: str, request: Callable[[], T]) -> T:
        with self._explained(key):
            return persist(request, self.attempts)

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
            code = _code(error)
            if isinstance(error, FileExistsError) or code == "PreconditionFailed":
                raise FileExistsError(errno.EEXIST, "the object exists already", self._name(key)) from error
            if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
                raise FileNotFoundError(errno.ENOENT, "no such object", self._name(key)) from error
            if isinstance(error, IsADirectoryError):
                raise
            if isinstance(error, PermissionError) and code not in _BROKEN_CREDENTIALS:
                detail = f"access denied ({code})" if code else "access denied"
                raise PermissionError(errno.EACCES, detail, self._name(key)) from error
            kind = code or type(error).__name__
            advice = _ADVICE.get(kind, "")
            if self.attempts > 1 and may_pass(error):
                advice = f" (all tries failed, {self.attempts} at most)" + advice
            text = " ".join(str(error).split())[:300]
            raise StorageError(f"storage: {public_uri(self.uri)}: {kind}: {text}{advice}") from error


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


_BROKEN_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "AuthorizationHeaderMalformed",
}
_KEYS = "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_PROFILE, or use a role."
_ADVICE = dict.fromkeys([*_BROKEN_CREDENTIALS, "NoCredentialsError", "PartialCredentialsError"], _KEYS) | {
    "NoSuchBucket": "; create the bucket, or correct its name or AWS_ENDPOINT_URL.",
    "EndpointConnectionError": "; check that the endpoint is up and that AWS_ENDPOINT_URL is right.",
    "ConnectTimeoutError": "; check that the endpoint is up and that AWS_ENDPOINT_URL is right.",
}


def _check_endpoint() -> None:
    """Refuse an endpoint with a password: it never works, and every error would show it."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL"):
        if "@" in urlsplit(os.environ.get(name, "")).netloc:
            raise ValueError(f"{name} contains a user or password; remove it from the address{_KEYS}")


def _code(error: BaseException | None) -> str:
    """S3's code of an error, for instance "NoSuchBucket", or an empty string."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
