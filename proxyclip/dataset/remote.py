"""Objects in a store, by fsspec: the only module that touches it."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, BinaryIO

import fsspec

from proxyclip.dataset.entry import Entry, StorageError, public_uri


@functools.lru_cache(maxsize=32)
def remote(uri: str, pid: int) -> Remote:
    """One connection pool for a URI and process, whatever the number of threads."""
    return Remote(uri)


class Remote:
    """An object store, by fsspec."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        protocol = uri.split("://")[0]
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        self.is_s3 = protocol in ("s3", "s3a")
        if self.is_s3:
            options["config_kwargs"] = {
                "retries": {"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", 5))},
                "connect_timeout": 10,
                "read_timeout": 60,
                "max_pool_connections": 64,
            }
        try:
            self.fs = fsspec.filesystem(protocol, **options)
        except (ValueError, ImportError) as error:
            raise ValueError(f"storage: {public_uri(uri)} found, but {error}") from error
        if self.is_s3:
            self.fs.retries = 2  # once more when a body breaks off, which botocore does not see
        self.root = self.fs._strip_protocol(uri).rstrip("/")

    def read(self, key: str) -> bytes:
        # By itself s3fs asks for the size before every read: a second request for each image.
        options = {"max_concurrency": 1} if self.is_s3 else {}
        with self._explained(key):
            return bytes(self.fs.cat_file(self._path(key), **options))

    def open(self, key: str) -> BinaryIO:
        with self._explained(key):
            file: BinaryIO = self.fs.open(self._path(key), "rb")
            return file

    def write(self, key: str, data: bytes) -> None:
        with self._explained(key):
            self.fs.pipe_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        for attempt in range(6):
            try:
                with self._explained(key):
                    self.fs.pipe_file(self._path(key), data, mode="create")
                return True
            except FileExistsError:
                return False
            except StorageError as error:
                # S3's answer to the slower of two at the same moment: ask again, then the file is there.
                if attempt == 5 or _code(error.__cause__) not in ("ConditionalRequestConflict", "409"):
                    raise
                time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._explained(key):
            self.fs.rm_file(self._path(key))

    def stat(self, key: str) -> Entry:
        with self._explained(key):
            info = self.fs.info(self._path(key))
        if info["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, "a prefix, not an object", self._name(key))
        return self._entry(info)

    def list(self, folder: str) -> Iterator[Entry]:
        base = self._path(folder) if folder else self.root
        try:
            with self._explained(folder):
                found = self.fs.find(base, detail=True)
        except FileNotFoundError:
            return
        for name, info in found.items():
            if info["type"] == "file" and name.startswith(base + "/") and not name.endswith("/"):
                yield self._entry(info)

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
            text = " ".join(str(error).split())[:300]
            raise StorageError(f"storage: {public_uri(self.uri)}: {kind}: {text}{advice}") from error


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


def _code(error: BaseException | None) -> str:
    """The code by which S3 names an error ("NoSuchBucket"), or nothing."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
