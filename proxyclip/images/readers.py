"""Reader processes: they read and resize images, so that a bad image cannot crash or block the labelling process.

They also keep reading out of the interpreter that feeds the networks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from queue import LifoQueue
from time import monotonic

import cv2
import numpy as np

from proxyclip.config import WindowConfig
from proxyclip.images.errors import ImageError
from proxyclip.images.reading import read_image
from proxyclip.images.sizes import ResizedImage

# The largest image that is read (`reading.MAX_PIXELS`) needs about 5 GiB in its widest mode.
MEMORY_LIMIT_BYTES = 8 * 2**30

_START_TIMEOUT_S = 120
_SOCKET_BUFFER_BYTES = 2**20
_REQUEST = struct.Struct("!Q")  # bytes of the encoded image, which follow
# Height and width of the pixels that follow, height and width of the original image, and bytes of an error or 0.
_REPLY = struct.Struct("!IIIII")

# By default glibc returns the memory of every image to the system, which takes longer than reading a small image.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

# The process searches modules where its parent does, whatever its folder and environment.
_MAIN = "import sys; sys.path[:] = sys.argv[2:]; from proxyclip.images.readers import serve; serve(sys.argv[1])"


class ReaderPool:
    """Up to `size` reader processes with one image each. Safe to call from many threads.

    windows: the windows to resize images for; None leaves images at their own size. timeout_s: seconds that one image
    may take. Processes start when they are needed. They end with the process that started them, even if that is killed.
    """

    def __init__(self, size: int, windows: WindowConfig | None, timeout_s: float) -> None:
        self._size = size
        self._idle: LifoQueue[_Reader] = LifoQueue()  # the last one used is used again first
        self._alone = threading.Lock()
        for _ in range(size):
            self._idle.put(_Reader(windows, timeout_s))

    def read(self, data: bytes) -> ResizedImage:
        """Like `reading.read_image`, with two more errors of an image.

        ImageError("timed_out") if it takes too long. ImageError("decoder_crashed") if its process died twice, the
        second time while no other image was read: the first time the system may have killed it because other images
        filled the memory. Raises RuntimeError or OSError if no process can be started.
        """
        reader = self._idle.get()
        try:
            return reader.read(data)
        except _Died:
            pass
        finally:
            self._idle.put(reader)
        with self._all() as readers:
            try:
                return readers[0].read(data)
            except _Died:
                raise ImageError("decoder_crashed", "its decoder process died twice") from None

    def close(self) -> None:
        """End the processes when they have read their images. A later `read` starts new ones."""
        with self._all() as readers:
            for reader in readers:
                reader.stop()

    @contextlib.contextmanager
    def _all(self) -> Iterator[list[_Reader]]:
        """All readers of the pool, when they are idle."""
        with self._alone:  # two callers with a part of the readers each would wait for ever
            readers = [self._idle.get() for _ in range(self._size)]
        try:
            yield readers
        finally:
            for reader in readers:
                self._idle.put(reader)


class _Died(Exception):  # noqa: N818
    """The reader process died while it had an image."""


class _Reader:
    """One process. It is started when it is needed, also after it died."""

    def __init__(self, windows: WindowConfig | None, timeout_s: float) -> None:
        self._windows = windows
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def read(self, data: bytes) -> ResizedImage:
        link = self._socket or self._start()
        deadline = monotonic() + self._timeout_s
        try:
            link.settimeout(self._timeout_s)
            link.sendall(_REQUEST.pack(len(data)))
            link.sendall(data)
            height, width, *original_hw, error_bytes = _REPLY.unpack(_receive(link, _REPLY.size, deadline))
            if not error_bytes:
                pixels = np.empty((height, width, 3), np.uint8)
                _receive_into(link, pixels.data.cast("B"), deadline)
                return ResizedImage(pixels, (original_hw[0], original_hw[1]))
            status, reason = json.loads(_receive(link, error_bytes, deadline))
        except TimeoutError:
            self.stop()
            raise ImageError("timed_out", f"decoding it took longer than {self._timeout_s:g} s") from None
        except ConnectionError:
            self.stop()
            raise _Died from None
        raise ImageError(status, reason)

    def stop(self) -> None:
        """End the process, even in the middle of an image."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        with theirs:
            windows = asdict(self._windows) if self._windows else None
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, json.dumps([windows, self._timeout_s]), *sys.path],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,  # Ctrl-C stops the run, which then stops this process
            )
        self._socket = ours
        try:
            _receive(ours, 1, monotonic() + _START_TIMEOUT_S)
        except (ConnectionError, TimeoutError):
            process = self._process
            self.stop()
            raise RuntimeError(
                f"a reader process did not start (exit code {process.returncode}); its error is in the log of this "
                "worker. Check that it can import proxyclip, numpy and PIL, and that there is free memory."
            ) from None
        return ours


def serve(settings: str) -> None:
    """The main loop of a reader process: read images from the socket at stdin until it closes.

    settings: JSON of the fields of a WindowConfig, or null, and the seconds that one image may take.
    """
    fields, timeout_s = json.loads(settings)
    windows = WindowConfig(**fields) if fields else None
    _limit()
    cv2.setNumThreads(1)  # the pool has one process per core
    link = socket.socket(fileno=0)
    with contextlib.suppress(ConnectionError):  # the parent has ended
        link.sendall(b"\0")
        while True:
            (size,) = _REQUEST.unpack(_receive(link, _REQUEST.size))
            data = _receive(link, size)
            # The parent keeps the time. If the parent has died, this timer ends a process that hangs.
            signal.setitimer(signal.ITIMER_REAL, timeout_s + 5)
            try:
                image = read_image(data, windows)
            except ImageError as error:
                answer = json.dumps([error.status, error.reason]).encode()
                link.sendall(_REPLY.pack(0, 0, 0, 0, len(answer)) + answer)
            else:
                pixels = np.ascontiguousarray(image.pixels)
                link.sendall(_REPLY.pack(*pixels.shape[:2], *image.original_hw, 0))
                link.sendall(pixels.data.cast("B"))
                del image, pixels
            signal.setitimer(signal.ITIMER_REAL, 0)
            del data


def _limit() -> None:
    """Limit the memory of this process, and write no core files."""
    import resource

    for what, limit in ((resource.RLIMIT_AS, MEMORY_LIMIT_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS has no RLIMIT_AS
            resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _receive(link: socket.socket, size: int, deadline: float | None = None) -> bytes:
    buffer = bytearray(size)
    _receive_into(link, memoryview(buffer), deadline)
    return bytes(buffer)


def _receive_into(link: socket.socket, buffer: memoryview, deadline: float | None) -> None:
    """Fill the buffer. Raises ConnectionError at the end of the stream, TimeoutError past the deadline."""
    while buffer:
        if deadline is not None:
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError
            link.settimeout(left)
        count = link.recv_into(buffer)
        if not count:
            raise ConnectionResetError
        buffer = buffer[count:]
