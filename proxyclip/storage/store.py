"""Storage: named bytes below a folder or an object-store prefix."""

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
    """Files below `uri`: a path, `file://`, `s3://bucket/prefix`, `memory://` or whatever fsspec knows.

    Keys are paths relative to it, with "/" between their parts. Only the URI travels when a Storage is pickled.
    S3 takes its endpoint and credentials from the AWS_* environment variables or AWS configuration files. A request
    to it that fails for a moment is made again, AWS_MAX_ATTEMPTS times in all (8); PROXYCLIP_READ_TIMEOUT_S (60) is
    how long it may be silent.
    Every method raises FileNotFoundError or PermissionError for a key, StorageError for the storage itself and
    ValueError for a key that would lead out of it.
    """

    uri: str

    def __post_init__(self) -> None:
        if not self.uri or "\0" in self.uri:
            raise ValueError(
                f"storage: {public_uri(self.uri)!r} found, a path or a URI like s3://bucket/prefix wanted."
            )
        uri = self.uri.removeprefix("file://")
        if "://" not in uri:
            uri = os.path.abspath(os.path.expanduser(uri))  # noqa: PTH100, PTH111  (".." goes, links stay)
        elif ":" in urlsplit(uri).netloc.rpartition("@")[0]:
            raise ValueError(
                f"storage: {public_uri(uri)!r} found with a password in it; leave it out: credentials come from "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role."
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

        An object store can lose the answer to a try that got through. So there it is also True where these very
        bytes are found in place, whoever put them.
        """
        return self._at(key).create(key, data)

    def delete(self, key: str) -> None:
        """Remove a file; one that is not there is fine."""
        self._at(key).delete(key)

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

    def _at(self, key: str) -> Disk | Remote:
        if not key or key.startswith("/") or "\0" in key or ".." in key.split("/"):
            raise ValueError(f"storage: key {key!r} found, a relative path without '..' wanted.")
        return Disk(self.local) if self.local else remote(self.uri, os.getpid())
