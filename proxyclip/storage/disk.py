"""Files on a disk. A file is whole or absent, and one that exists can be protected from overwriting."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from proxyclip.storage.entry import TEMPORARY, Entry, StorageError

# No space, no quota, or a file larger than this user or file system may have.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Disk:
    """Plain files below `root`. Not by fsspec: on disks it has neither create-if-absent nor atomic writes."""

    root: Path

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        return (self.root / key).open("rb")

    def read_range(self, key: str, start: int, end: int) -> bytes:
        with self.open(key) as file:
            file.seek(start)
            return file.read(end - start)

    def write(self, key: str, data: bytes) -> None:
        with self._written(key, data) as temporary:
            temporary.replace(self.root / key)

    def write_file(self, key: str, path: Path) -> None:
        with self._written(key, path) as temporary:
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
                    f"storage: {self.root}: the file system has no hard links, which are needed to create files "
                    "without overwriting others; write to another disk, or to an object store by its own URI."
                ) from error
            return True

    def check_writable(self) -> None:
        """Create a file and remove it again; in the nearest parent folder where `root` does not exist yet."""
        folder, probe = self.root, f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            while not os.path.lexists(folder):
                folder = folder.parent
            if not folder.is_dir():
                raise StorageError(
                    f"storage: {self.root}: {folder} is not a folder; choose another folder, or move that file away."
                )
            Disk(folder).create(probe, b"")
            Disk(folder).delete(probe)
        except StorageError:
            raise
        except OSError as error:
            kind = PermissionError if isinstance(error, PermissionError) else StorageError
            raise kind(
                f"storage: {self.root}: cannot create files in {folder}: {error.strerror}; choose another folder, or "
                "change its permissions."
            ) from error

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def stat(self, key: str) -> Entry:
        path = self.root / key
        found = path.stat()
        if not path.is_file():
            raise IsADirectoryError(errno.EISDIR, "this is a folder, not a file", str(path))
        return Entry(key, found.st_size, str(found.st_mtime_ns), int(found.st_mtime))

    def list(self, folder: str) -> Iterator[Entry]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield from self._walk(folder, ())

    def _walk(self, folder: str, parents: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
        """The files of a folder. Links to folders are followed, circles are not. A dead link is a file of 0 bytes."""
        path = self.root / folder
        identity = (path.stat().st_dev, path.stat().st_ino)
        if identity in parents:
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(TEMPORARY):
                    continue
                key = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    if entry.is_dir():
                        yield from self._walk(key, (*parents, identity))
                    elif entry.is_file():
                        found = entry.stat()
                        yield Entry(key, found.st_size, str(found.st_mtime_ns), int(found.st_mtime))
                    elif entry.is_symlink() and not (self.root / key).exists():
                        yield Entry(key, 0, "")
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    yield Entry(key, 0, "")  # a link to itself is dead too

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes | Path) -> Iterator[Path]:
        """A temporary file with the data, or a copy of a file, beside its final place.

        fsync makes it survive a power failure.
        """
        folder = (self.root / key).parent
        temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, 2**20)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise StorageError(
                f"storage: {self.root / key}: {error.strerror}; make room and run the same command again."
            ) from error
        finally:
            with contextlib.suppress(NotADirectoryError):
                temporary.unlink(missing_ok=True)
