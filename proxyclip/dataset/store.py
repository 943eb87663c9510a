"""Storage: named bytes below a folder or an object-store prefix. The only module that touches fsspec."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import fsspec

_TEMPORARY = ".proxyclip-tmp-"


class StorageError(OSError):
    """The storage as a whole does not answer as it should: address, credentials, bucket, network."""


class Entry(NamedTuple):
    """A stored file. etag changes when its content does: the S3 ETag, or the time of the last change on disk."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True, repr=False)
class Storage:
    """Files below `uri`: a path, `file://`, `s3://bucket/prefix`, `memory://` or whatever fsspec knows.

    Keys are paths relative to it, with "/" between their parts. Only the URI travels when a Storage is pickled.
    S3 takes its endpoint and credentials from the AWS_* environment variables or AWS configuration files.
    Every method raises FileNotFoundError or PermissionError for a key, StorageError for the storage itself and
    ValueError for a key that would lead out of it.
    """

    uri: str

    def __post_init__(self) -> None:
        if not self.uri or "\0" in self.uri:
            raise ValueError(f"storage: {self.uri!r} found, a path or a URI like s3://bucket/prefix wanted.")
        uri = self.uri.removeprefix("file://")
        if "://" not in uri:
            uri = os.path.abspath(os.path.expanduser(uri))  # noqa: PTH100, PTH111  (".." goes, links stay)
        elif ":" in urlsplit(uri).netloc.rpartition("@")[0]:
            raise ValueError(
                f"storage: {public_uri(uri)!r} found with a password in it; leave it out and {_KEYS.lstrip('; ')}"
            )
        elif not urlsplit(uri).netloc and not uri.startswith("memory:"):
            raise ValueError(f"storage: {public_uri(uri)!r} found, a bucket after '://' wanted.")
        object.__setattr__(self, "uri", uri if uri == "/" or uri.endswith("://") else uri.rstrip("/"))

    def __repr__(self) -> str:
        return f"Storage({public_uri(self.uri)!r})"

    @property
    def local(self) -> Path | None:
        """The folder on disk, None for an object store."""
        return None if "://" in self.uri else Path(self.uri)

    def read(self, key: str) -> bytes:
        return self._at(key).read(key)

    def open(self, key: str) -> BinaryIO:
        """The file to read and seek in, for readers that need a part of it."""
        return self._at(key).open(key)

    def write(self, key: str, data: bytes) -> None:
        """Put a file in place, whole or not at all; replaces one that is there."""
        self._at(key).write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Put a file in place unless there is one. Of several at once exactly one succeeds: True for that one.

        After a broken connection False can also mean that an earlier try of the same call got through.
        """
        return self._at(key).create(key, data)

    def stat(self, key: str) -> Entry:
        return self._at(key).stat(key)

    def exists(self, key: str) -> bool:
        """Whether there is a file of this name; a folder is none."""
        try:
            self.stat(key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return False
        return True

    def list(self, folder: str = "") -> Iterator[Entry]:
        """All files below `folder`, however deep, sorted by key. Nothing where there is no such folder."""
        where = self._at(folder or ".")
        yield from sorted(where.list(folder.strip("/")))

    def _at(self, key: str) -> _Disk | _Remote:
        if not key or key.startswith("/") or "\0" in key or ".." in key.split("/"):
            raise ValueError(f"storage: key {key!r} found, a relative path without '..' wanted.")
        return _Disk(self.local) if self.local else _remote(self.uri, os.getpid())


def public_uri(uri: str) -> str:
    """A URI without user, password and query, as it may be shown and stored. Paths stay as they are."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    user, _, place = parts.netloc.rpartition("@")
    if parts.scheme in ("abfs", "abfss", "az") and user and ":" not in user:
        place = parts.netloc  # on Azure that is the container
    return urlunsplit((parts.scheme, place, parts.path, "", ""))


@dataclass(frozen=True)
class _Disk:
    """Plain files. No fsspec: it has no create-if-absent for disks and no write that is whole or absent."""

    root: Path

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        return (self.root / key).open("rb")

    def write(self, key: str, data: bytes) -> None:
        with self._written(key, data) as temporary:
            temporary.replace(self.root / key)

    def create(self, key: str, data: bytes) -> bool:
        with self._written(key, data) as temporary:
            try:
                os.link(temporary, self.root / key)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise
                raise StorageError(
                    f"storage: {self.root} is on a file system without hard links, which files that must not be "
                    "overwritten need; write to another disk or to an object store by its own URI."
                ) from error
            return True

    def stat(self, key: str) -> Entry:
        path = self.root / key
        found = path.stat()
        if not path.is_file():
            raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
        return Entry(key, found.st_size, str(found.st_mtime_ns))

    def list(self, folder: str) -> Iterator[Entry]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield from self._walk(folder, ())

    def _walk(self, folder: str, parents: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
        """Follows links to folders, but not back into a folder it is in. A dangling link is a file of 0 bytes."""
        path = self.root / folder
        identity = (path.stat().st_dev, path.stat().st_ino)
        if identity in parents:
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(_TEMPORARY):
                    continue  # being written, or left by a writer that was killed
                key = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    if entry.is_dir():
                        yield from self._walk(key, (*parents, identity))
                    elif entry.is_file():
                        found = entry.stat()
                        yield Entry(key, found.st_size, str(found.st_mtime_ns))
                    elif entry.is_symlink() and not (self.root / key).exists():
                        yield Entry(key, 0, "")
                except FileNotFoundError:
                    continue  # removed while we were listing

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[Path]:
        """The data in a hidden file beside its final place, on the disk and not only in its cache."""
        folder = (self.root / key).parent
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


@functools.lru_cache(maxsize=32)
def _remote(uri: str, pid: int) -> _Remote:
    """One connection pool for a URI and process, whatever the number of threads."""
    return _Remote(uri)


class _Remote:
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
        return Entry(info["name"][len(self.root) + 1 :], int(info["size"] or 0), etag)

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
