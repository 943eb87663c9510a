"""Decoders: processes of their own that turn encoded images into pixels of the size that is wanted.

A bad image then hurts nobody else, and reading images does not wait for the interpreter that feeds the networks.
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
from proxyclip.images.reading import ImageError, ResizedImage, read_image

# The largest image that is decoded at all (`image.MAX_PIXELS`), in its widest mode, needs about 5 GiB.
MEMORY_LIMIT_BYTES = 8 * 2**30

_START_TIMEOUT_S = 120
_SOCKET_BUFFER_BYTES = 2**20
_REQUEST = struct.Struct("!Q")  # bytes of the encoded image, which follow
# Height and width of the pixels that follow, those of the original image, and 0; or the bytes of an error.
_REPLY = struct.Struct("!IIIII")

# glibc else gives the memory of every image back to the system, and its pages cost more than a small image does.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

# The child imports what its parent would, whatever folder or environment it is started in.
_MAIN = "import sys; sys.path[:] = sys.argv[2:]; from proxyclip.images.readers import serve; serve(sys.argv[1])"


class DecoderPool:
    """Up to `size` decoder processes with one image each; safe to call from many threads.

    windows: what images are read for. timeout_s: seconds that one image may take. Processes are started when they
    are needed, and end with the process that started them, however that ends.
    """

    def __init__(self, size: int, windows: WindowConfig, timeout_s: float) -> None:
        self._size = size
        self._idle: LifoQueue[_Decoder] = LifoQueue()  # the last one used is the first to be used again
        self._alone = threading.Lock()
        for _ in range(size):
            self._idle.put(_Decoder(windows, timeout_s))

    def read(self, data: bytes) -> ResizedImage:
        """As `proxyclip.images.reading.read_image`, with two more failures of an image.

        ImageError("timed_out") where it takes too long, ImageError("decoder_crashed") where its decoder died of
        it twice, the second time with no other image beside it: a kill from outside, as for want of memory, is
        not the image's fault. Raises RuntimeError or OSError where no decoder can be started.
        """
        decoder = self._idle.get()
        try:
            return decoder.read(data)
        except _Died:
            pass
        finally:
            self._idle.put(decoder)
        with self._all() as decoders:
            try:
                return decoders[0].read(data)
            except _Died:
                raise ImageError("decoder_crashed", "its decoder process died twice") from None

    def close(self) -> None:
        """End the processes, once they are done with what they have; a later `decode` starts new ones."""
        with self._all() as decoders:
            for decoder in decoders:
                decoder.stop()

    @contextlib.contextmanager
    def _all(self) -> Iterator[list[_Decoder]]:
        """Every decoder of the pool, idle."""
        with self._alone:  # two that each hold a part would wait for ever
            decoders = [self._idle.get() for _ in range(self._size)]
        try:
            yield decoders
        finally:
            for decoder in decoders:
                self._idle.put(decoder)


class _Died(Exception):  # noqa: N818
    """The decoder process is gone, and the image it had with it."""


class _Decoder:
    """One process, started when it is first needed and again after it died."""

    def __init__(self, windows: WindowConfig, timeout_s: float) -> None:
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
        """End the process, in the middle of an image if need be."""
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
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, json.dumps([asdict(self._windows), self._timeout_s]), *sys.path],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for the run, not for the image in hand
            )
        self._socket = ours
        try:
            _receive(ours, 1, monotonic() + _START_TIMEOUT_S)
        except (ConnectionError, TimeoutError):
            process = self._process
            self.stop()
            raise RuntimeError(
                f"a decoder process did not start (exit code {process.returncode}); what it said is in the log of "
                "this worker. Can it import proxyclip, numpy and PIL, and is there memory left?"
            ) from None
        return ours


def serve(settings: str) -> None:
    """The decoder process: images from the socket at stdin, one after the other, until it closes.

    settings: JSON of the fields of a WindowConfig and of the seconds that one image may take.
    """
    fields, timeout_s = json.loads(settings)
    windows = WindowConfig(**fields)
    _limit()
    cv2.setNumThreads(1)  # the pool has a process for each core
    link = socket.socket(fileno=0)
    with contextlib.suppress(ConnectionError):  # the parent ended
        link.sendall(b"\0")
        while True:
            (size,) = _REQUEST.unpack(_receive(link, _REQUEST.size))
            data = _receive(link, size)
            # The parent keeps the time. Where it is gone, this ends an image that would never end by itself.
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
    """Bound the memory of this process, and let it leave no core files behind."""
    import resource

    for what, limit in ((resource.RLIMIT_AS, MEMORY_LIMIT_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        with contextlib.suppress(ValueError, OSError):  # macOS knows no RLIMIT_AS
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
