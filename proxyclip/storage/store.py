"""Storage: files below a folder or an object-store prefix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from proxyclip.storage.disk import Disk
from proxyclip.storage.entry import Entry, StorageError, public_uri
from proxyclip.storage.remote import Remote, remote

__all__ = ["Entry", "Storage", "StorageError", "public_uri"]


@dataclass(frozen=True, repr=False)
class Storage:
    """Files below `uri`: a path, `file://`, `s3://bucket/prefix`, `memory://` or another URI that fsspec knows.

    Keys are paths relative to it, separated by "/". A pickled Storage contains only its URI.
    S3 takes its endpoint and credentials from the AWS_* environment variables or AWS configuration files. Requests
    to S3 that fail for a moment are retried: at most AWS_MAX_ATTEMPTS tries (default 8), each with
    PROXYCLIP_READ_TIMEOUT_S seconds for an answer (default 60).
    Every method raises FileNotFoundError or PermissionError if a key cannot be used, StorageError if the storage
    does not work, and ValueError for a key that leads out of it.
    """

    uri: str

    def __post_init__(self) -> None:
        if not self.uri or "\0" in self.uri:
            raise ValueError(
                f"storage: {public_uri(self.uri)!r} is no place for files; use a path or a URI like s3://bucket/prefix."
            )
        uri = self.uri.removeprefix("file://")
        if "://" not in uri:
            uri = os.path.abspath(os.path.expanduser(uri))  # noqa: PTH100, PTH111  (".." goes, links stay)
        elif ":" in urlsplit(uri).netloc.rpartition("@")[0]:
            raise ValueError(
                f"storage: {public_uri(uri)!r} contains a password; remove it. Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or use a role."
            )
        elif not urlsplit(uri).netloc and not uri.startswith("memory:"):
            raise ValueError(f"storage: {public_uri(uri)!r} names no bucket; write it after '://'.")
        object.__setattr__(self, "uri", uri if uri == "/" or uri.endswith("://") else uri.rstrip("/"))

    def __repr__(self) -> str:
        return f"Storage({public_uri(self.uri)!r})"

    @property
    def local(self) -> Path | None:
        """The folder on disk, or None for an object store."""
        return None if "://" in self.uri else Path(self.uri)

    def read(self, key: str) -> bytes:
        return self._at(key).read(key)

    def open(self, key: str) -> BinaryIO:
        """Open a file to read parts of it."""
        return self._at(key).open(key)

    def read_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes of a file from start to before end."""
        return self._at(key).read_range(key, start, end)

    def write(self, key: str, data: bytes) -> None:
        """Write a whole file or nothing. An existing file is replaced."""
        self._at(key).write(key, data)

    def write_file(self, key: str, path: Path) -> None:
        """Write a copy of a local file, or nothing. It is never in memory as a whole."""
        self._at(key).write_file(key, path)

    def create(self, key: str, data: bytes) -> bool:
        """Write a file unless it exists. Returns True if it was written; of several writers exactly one gets True.

        In an object store, also True if the existing file has the same content: the answer to a successful try can
        get lost, and then nobody can tell who wrote it.
        """
        return self._at(key).create(key, data)

    def check_writable(self) -> None:
        """Raise StorageError or PermissionError if files cannot be created here, and leave nothing behind.

        A store that does not support conditional writes is refused too: `create` could overwrite files there.
        """
        (Disk(self.local) if self.local else remote(self.uri, os.getpid())).check_writable()

    def delete(self, key: str) -> None:
        """Remove a file. A missing file is no error."""
        self._at(key).delete(key)

    def stat(self, key: str) -> Entry:
        return self._at(key).stat(key)

    def exists(self, key: str) -> bool:
        """Whether this is a file. A folder is not."""
        try:
            self.stat(key)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return False
        return True

    def list(self, folder: str = "") -> Iterator[Entry]:
        """All files below `folder` at any depth, sorted by key. Empty if the folder does not exist."""
        yield from sorted(self.walk(folder))

    def walk(self, folder: str = "") -> Iterator[Entry]:
        """As `list`, in any order, and without holding all of them at once."""
        where = self._at(folder or ".")
        yield from where.list(folder.strip("/"))

    def _at(self, key: str) -> Disk | Remote:
        if not key or key.startswith("/") or "\0" in key or ".." in key.split("/"):
            raise ValueError(f"storage: the key {key!r} leads out of the storage; use a relative path without '..'.")
        return Disk(self.local) if self.local else remote(self.uri, os.getpid())
