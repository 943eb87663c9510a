"""What all storages share: entries, URIs that are safe to show, and StorageError."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

# Names that start with this are temporary. Listings leave them out: a killed process may leave one behind.
TEMPORARY = ".proxyclip-tmp-"


class StorageError(OSError):
    """The storage as a whole does not work: address, credentials, bucket, network, or a full disk."""


class Entry(NamedTuple):
    """A stored file. etag changes with the content: the S3 ETag, or on disk the time of the last change.

    modified_s: when it was last written, in whole seconds since 1970; 0 if the storage does not say.
    """

    key: str
    size_bytes: int
    etag: str
    modified_s: int = 0


def public_uri(uri: str) -> str:
    """A URI without user, password and query, safe to show and store. Paths stay as they are."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    user, _, place = parts.netloc.rpartition("@")
    if parts.scheme in ("abfs", "abfss", "az") and user and ":" not in user:
        place = parts.netloc  # on Azure the part before "@" is the container
    return urlunsplit((parts.scheme, place, parts.path, "", ""))
