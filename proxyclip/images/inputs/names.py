"""The uri of an image: how it names a file, a member of a tar file, a row of a Parquet file or an address.

    photos/a.jpg                 a file, relative to the input
    s3://bucket/photos/a.jpg     an address, from a table
    train-0001.tar!000123.jpg    a member of a tar file
    part-3.parquet#00000017      a row of a Parquet file, counted from 0
    part-3.parquet#cat_17        the row whose --key-column is "cat_17"

With nothing after "!" or "#", it stands for a tar or Parquet file that cannot be read: the run records one failure for
it.
"""

from __future__ import annotations

import re

TAR, PARQUET = ".tar!", ".parquet#"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Rows sort as text in the order of the file, so that a shard of work is one piece of it.
_ROW_DIGITS = 8


def is_address(uri: str) -> bool:
    """Whether a uri stands for itself, and not for a place in the input."""
    return _SCHEME.match(uri) is not None


def split_tar(uri: str) -> tuple[str, str] | None:
    """The key of the tar file and the member's name."""
    return _split(uri, TAR)


def split_parquet(uri: str) -> tuple[str, str] | None:
    """The key of the Parquet file, and the row or the row's key."""
    return _split(uri, PARQUET)


def is_plain(key: str) -> bool:
    """Whether a file of this name can be told from a member, a row and an address."""
    return TAR not in key and PARQUET not in key and "://" not in key


def stands_for_damage(uri: str) -> bool:
    """Whether a uri stands for a tar or Parquet file that cannot be read."""
    return not is_address(uri) and uri.endswith((TAR, PARQUET))


def row_name(row: int) -> str:
    """How a row is called that has no key."""
    return f"{row:0{_ROW_DIGITS}d}"


def as_path(uri: str) -> str:
    """The uri as a path below a folder: `s3://bucket/a.jpg` becomes `s3/bucket/a.jpg`."""
    return re.sub(r"://+", "/", uri, count=1) if is_address(uri) else uri


def stem(uri: str) -> str:
    """The path of a uri without the extension. A row of a Parquet file has none."""
    path = as_path(uri)
    if split_parquet(uri) is not None:
        return path
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def _split(uri: str, mark: str) -> tuple[str, str] | None:
    file, found, inside = uri.partition(mark)
    return (file + mark[:-1], inside) if found else None
