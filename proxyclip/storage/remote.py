"""Objects in a store, by fsspec: the only module that touches it."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import fsspec

from proxyclip.storage.entry import Entry, StorageError, public_uri
from proxyclip.storage.retry import max_attempts, may_pass, persist, read_timeout_s

T = TypeVar("T")


# Keys in a page of a listing; S3 gives no more.
PAGE_KEYS = 1000


@functools.lru_cache(maxsize=32)
def remote(uri: str, pid: int) -> Remote:
    """One connection pool for a URI and process, whatever the number of threads."""
    return Remote(uri)


class Remote:
    """An object store, by fsspec.

    Requests to S3 are tried again here alone: botocore and s3fs are told to try once. Only aiohttp still sends a
    request again by itself, once, when a connection breaks. Other stores keep the retries of their own clients.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        protocol = uri.split("://")[0]
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        self.is_s3 = protocol in ("s3", "s3a")
        self.attempts = 1
        self.keeps = False  # whether it is known to refuse to overwrite
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
            raise ValueError(f"storage: {public_uri(uri)} found, but {error}") from error
        if self.is_s3:
            self.fs.retries = 1
        self.root = self.fs._strip_protocol(uri).rstrip("/")

    def read(self, key: str) -> bytes:
        # By itself s3fs asks for the size before every read: a second request for each image.
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

    def create(self, key: str, data: bytes) -> bool:
        if not self.keeps:
            self._check_that_it_keeps(key, data)
        if self._put_if_absent(key, data):
            return True
        # Our own try may have got through, and its answer been lost; aiohttp's repetition is not even seen here.
        return self.read(key) == data

    def _put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            self._ask(key, lambda: self.fs.pipe_file(self._path(key), data, mode="create"))
        except FileExistsError:
            return False
        return True

    def _check_that_it_keeps(self, key: str, data: bytes) -> None:
        """Some stores take the condition and overwrite all the same: put what is there, or shall be, once more."""
        try:
            data = self.read(key)
        except FileNotFoundError:
            self._put_if_absent(key, data)
            data = self.read(key)
        if self._put_if_absent(key, data):
            raise StorageError(
                f"storage: {public_uri(self.uri)}: the store overwrites files that are to be created only if absent "
                "(If-None-Match), so that two runs could destroy each other's; use a store that heeds it, or a disk."
            )
        self.keeps = True

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask(key, lambda: self.fs.rm_file(self._path(key)))

    def stat(self, key: str) -> Entry:
        info = self._ask(key, lambda: self.fs.info(self._path(key)))
        if info["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, "a prefix, not an object", self._name(key))
        return self._entry(info)

    def list(self, folder: str) -> Iterator[Entry]:
        base = self._path(folder) if folder else self.root
        find = self._list_s3 if self.is_s3 else self._find
        for info in find(folder, base):
            name = info["name"]
            if info["type"] == "file" and name.startswith(base + "/") and not name.endswith("/"):
                yield self._entry(info)

    def _find(self, folder: str, base: str) -> Iterator[dict[str, Any]]:
        try:
            yield from self._ask(folder, lambda: self.fs.find(base, detail=True)).values()
        except FileNotFoundError:
            return

    def _list_s3(self, folder: str, base: str) -> Iterator[dict[str, Any]]:
        """Page by page: a long listing as a whole would never get through a store that fails now and then."""
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
        tags = (info.get(name) for name in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created"))
        etag = str(next((tag for tag in tags if tag), "")).strip('"')
        times = (info.get(name) for name in ("LastModified", "last_modified", "mtime", "updated", "created"))
        modified: Any = next((time for time in times if time), 0)
        if isinstance(modified, datetime):
            modified = modified.timestamp()
        modified_s = int(modified) if isinstance(modified, (int, float)) else 0
        return Entry(info["name"][len(self.root) + 1 :], int(info["size"] or 0), etag, modified_s)

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """What fsspec and its stores raise, sorted into what is about the key and what is about the storage."""
        try:
            yield
        except Exception as error:
            code = _code(error)
            if isinstance(error, FileExistsError) or code == "PreconditionFailed":
                raise FileExistsError(errno.EEXIST, "exists already", self._name(key)) from error
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
                advice = f" (and so at every try, {self.attempts} at most)" + advice
            text = " ".join(str(error).split())[:300]
            raise StorageError(f"storage: {public_uri(self.uri)}: {kind}: {text}{advice}") from error


class _Object(io.RawIOBase):
    """An object to seek in. fsspec's own file would try a range once."""

    def __init__(self, remote: Remote, key: str, size_bytes: int) -> None:
        self._remote, self._key, self._size_bytes = remote, key, size_bytes
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
        data = self._remote.read_range(self._key, self._position, end)
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
_KEYS = "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), AWS_PROFILE, or give a role."
_ADVICE = dict.fromkeys([*_BROKEN_CREDENTIALS, "NoCredentialsError", "PartialCredentialsError"], _KEYS) | {
    "NoSuchBucket": "; create the bucket, or mend its name or AWS_ENDPOINT_URL.",
    "EndpointConnectionError": "; is the endpoint up, and AWS_ENDPOINT_URL right?",
    "ConnectTimeoutError": "; is the endpoint up, and AWS_ENDPOINT_URL right?",
}


def _check_endpoint() -> None:
    """An endpoint with a password in it never works, and would be named in every error."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL"):
        if "@" in urlsplit(os.environ.get(name, "")).netloc:
            raise ValueError(f"{name}: an address with a user or password in it found; leave them out. {_KEYS[2:]}")


def _code(error: BaseException | None) -> str:
    """The code by which S3 names an error ("NoSuchBucket"), or nothing."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
