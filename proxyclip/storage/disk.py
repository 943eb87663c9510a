"""Files on a disk: whole or absent, and created only once."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from proxyclip.storage.entry import Entry, StorageError

TEMPORARY = ".proxyclip-tmp-"
# No space, no quota, or a file larger than this user or file system may have.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Disk:
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

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def stat(self, key: str) -> Entry:
        path = self.root / key
        found = path.stat()
        if not path.is_file():
            raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
        return Entry(key, found.st_size, str(found.st_mtime_ns), int(found.st_mtime))

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
                if entry.name.startswith(TEMPORARY):
                    continue  # being written, or left by a writer that was killed
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
                    continue  # removed while we were listing
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    yield Entry(key, 0, "")  # a link that leads to itself is as dead as a dangling one

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[Path]:
        """The data in a hidden file beside its final place, on the disk and not only in its cache."""
        folder = (self.root / key).parent
        temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise StorageError(
                f"storage: {self.root / key}: {error.strerror}; make room, and run the same command again."
            ) from error
        finally:
            with contextlib.suppress(NotADirectoryError):
                temporary.unlink(missing_ok=True)
