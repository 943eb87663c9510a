"""What every storage speaks of: entries, addresses, and its own failure."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit


class StorageError(OSError):
    """The storage as a whole does not answer as it should: address, credentials, bucket, network."""


class Entry(NamedTuple):
    """A stored file. etag changes when its content does: the S3 ETag, or the time of the last change on disk.

    modified_s: when it was last written, in whole seconds since 1970; 0 where the storage does not say.
    """

    key: str
    size_bytes: int
    etag: str
    modified_s: int = 0


def public_uri(uri: str) -> str:
    """A URI without user, password and query, as it may be shown and stored. Paths stay as they are."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    user, _, place = parts.netloc.rpartition("@")
    if parts.scheme in ("abfs", "abfss", "az") and user and ":" not in user:
        place = parts.netloc  # on Azure that is the container
    return urlunsplit((parts.scheme, place, parts.path, "", ""))
