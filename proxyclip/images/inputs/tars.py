"""Tar files of images, as WebDataset and img2dataset write them: find the members, read them where they lie."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.kept import Kept
from proxyclip.images.inputs.names import TAR, split_tar
from proxyclip.images.ref import GONE, ImageRef, is_image
from proxyclip.storage.store import Entry, Storage

# A tar file is read from front to back in blocks of this size; what lies between two blocks that are needed is not
# read. From a store, a smaller block costs as much time.
_BLOCK_BYTES = 2**20
# Members that lie so close together are read with one request, which is at most so large.
_GAP_BYTES, _REQUEST_BYTES = 2**18, 2**23
_INDEXES = 64


class Member(NamedTuple):
    """Where the bytes of a member are."""

    offset: int
    size_bytes: int


@dataclass(frozen=True)
class TarIndex:
    """The images of a tar file, by name. Of members with the same name the last counts, as when it is unpacked.

    damage: why the file cannot be read to its end, if it cannot; members behind that are unknown. etag: of the file.
    """

    etag: str
    members: dict[str, Member]
    damage: str | None


def index_tar(storage: Storage, entry: Entry) -> TarIndex:
    """Find the images of a tar file in one pass over its headers."""
    with storage.open(entry.key) as file:
        # On a disk only the headers are read: that is quicker than reading all.
        blocks = file if storage.local else io.BufferedReader(file.raw, _BLOCK_BYTES)  # type: ignore[attr-defined]
        members: dict[str, Member] = {}
        everything: dict[str, Member] = {}
        damage = None
        end = 0
        try:
            with tarfile.open(fileobj=blocks, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                    end = tar.offset
                    if end > entry.size_bytes:
                        raise tarfile.ReadError("the file ends within a member")
                    name = re.sub(r"^(\./)+", "", info.name)
                    if info.islnk():
                        found = everything.get(re.sub(r"^(\./)+", "", info.linkname))
                    else:
                        found = Member(info.offset_data, info.size) if info.isreg() and not info.issparse() else None
                    if found is not None:
                        everything[name] = found
                        if is_image(name):
                            members[name] = found
                _refuse_no_end(blocks, end)
        except (tarfile.TarError, EOFError, UnicodeError, ValueError) as error:
            damage = f"the tar file {entry.key} is damaged at byte {end} of {entry.size_bytes} ({error})"
    return TarIndex(entry.etag, members, damage)


def _refuse_no_end(blocks: IO[bytes], end: int) -> None:
    """Raise ReadError if a tar file does not end with zeros. tarfile takes any damage for the end."""
    blocks.seek(end)
    mark = blocks.read(tarfile.BLOCKSIZE)
    if len(mark) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it has no end: it was cut off")
    if mark.strip(b"\0"):
        raise tarfile.ReadError("there is no header of a member")


def list_tar(storage: Storage, entry: Entry) -> list[ImageRef]:
    """The images of a tar file. One that is damaged has one more, which stands for what cannot be found."""
    index = index_tar(storage, entry)
    found = [
        ImageRef(f"{entry.key}!{name}", member.size_bytes, f"{member.offset}-{index.etag}")
        for name, member in index.members.items()
    ]
    return [*found, ImageRef(f"{entry.key}!", 0, index.etag)] if index.damage else found


class TarFiles:
    """Reads members of tar files."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._indexes: Kept[TarIndex] = Kept(_INDEXES)

    def read(self, uri: str) -> bytes:
        """The bytes of a member. Raises ImageError("fetch_failed") if there are none."""
        key, name = _parts(uri)
        return self._read_member(key, name)

    def plan(self, refs: Sequence[ImageRef]) -> Iterator[list[ImageRef]]:
        """The members in groups that are best read together: neighbours in a tar file."""
        group: list[ImageRef] = []
        first = last = 0
        for ref in sorted(refs, key=lambda ref: (_parts(ref.uri)[0], _offset(ref))):
            (key, name), start = _parts(ref.uri), _offset(ref)
            end = start + ref.size_bytes
            is_near = group and name and _parts(group[0].uri)[0] == key and start - last <= _GAP_BYTES
            if is_near and end - first <= _REQUEST_BYTES:
                group.append(ref)
            else:
                if group:
                    yield group
                group, first = [ref], start
            last = end
        if group:
            yield group

    def read_group(self, group: Sequence[ImageRef]) -> list[bytes | ImageError]:
        """The bytes of a group of `plan`, read with one request if the tar file is as it was when it was listed."""
        key = _parts(group[0].uri)[0]
        try:
            etag = self._storage.stat(key).etag
        except FileNotFoundError:
            return [ImageError("fetch_failed", GONE) for _ in group]
        if all(ref.etag == f"{_offset(ref)}-{etag}" for ref in group):
            first = _offset(group[0])
            data = self._storage.read_range(key, first, max(_offset(ref) + ref.size_bytes for ref in group))
            starts = [_offset(ref) - first for ref in group]
            return [data[start : start + ref.size_bytes] for start, ref in zip(starts, group, strict=True)]
        return [self._or_error(ref.uri) for ref in group]

    def _or_error(self, uri: str) -> bytes | ImageError:
        try:
            return self.read(uri)
        except ImageError as error:
            return error

    def _read_member(self, key: str, name: str) -> bytes:
        try:
            index = self._indexes.get(key, lambda: index_tar(self._storage, self._storage.stat(key)))
        except FileNotFoundError as error:
            raise ImageError("fetch_failed", GONE) from error
        member = index.members.get(name)
        if member is not None:
            return self._storage.read_range(key, member.offset, member.offset + member.size_bytes)
        if index.damage:
            raise ImageError("fetch_failed", index.damage)
        if not name:
            raise ImageError("fetch_failed", f"the tar file {key} was damaged when it was listed and is whole now")
        raise ImageError("fetch_failed", f"the tar file {key} has no member {name} any more")


def _parts(uri: str) -> tuple[str, str]:
    found = split_tar(uri)
    assert found is not None, f"{uri} has no {TAR}"
    return found


def _offset(ref: ImageRef) -> int:
    """Where the member's bytes begin, which its etag says; 0 for what stands for damage."""
    number, dash, _ = ref.etag.partition("-")
    return int(number) if dash and number.isdecimal() else 0
