"""A proxy in front of a real object store: it breaks the requests it is told to break, and counts them."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

ERROR_500 = "error 500"
SLOW_DOWN = "503 SlowDown"
SLOW = "slow answer"
RESET_BEFORE = "reset before the store saw the request"
RESET_AFTER = "reset after the store carried it out"
TIMEOUT = "no answer before the client's timeout"
PARTIAL = "part of a body"
KINDS = (ERROR_500, SLOW_DOWN, SLOW, RESET_BEFORE, RESET_AFTER, TIMEOUT, PARTIAL)  # faults that pass by themselves
EXPIRED = "403 ExpiredToken"
DENIED = "403 AccessDenied"

_ERRORS = {
    ERROR_500: (500, "InternalError", "We encountered an internal error. Please try again."),
    SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    EXPIRED: (403, "ExpiredToken", "The provided token has expired."),
    DENIED: (403, "AccessDenied", "Access Denied."),
}
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


class FaultProxy(ThreadingHTTPServer):
    """Passes requests on to `backend`, a URL, unless a fault is due.

    Faults come in three ways. `rate` gives each of KINDS to this share of the requests, in an order that depends on
    `seed`. `queue` holds faults for the next requests as (method, kind). `always` is one kind for all requests whose
    path contains `only`. A client that is to time out waits for `hold_s`.

    Requests whose "METHOD PATH" contains `held` wait until it changes, unless it is empty; `waiting` counts them. Their
    clients hear ten times a second that the request is being processed, so they do not time out.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, backend: str, *, rate: float = 0.0, seed: int = 0, hold_s: float = 5.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = urlsplit(backend).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.rate, self.hold_s = rate, hold_s
        self.always: str | None = None
        self.only = ""
        self.queue: list[tuple[str, str]] = []
        self.held = ""
        self.unconditional = False  # hides the conditions of writes from the store
        self.seen: list[tuple[str, str]] = []  # method and path of every request
        self.faults: Counter[str] = Counter()
        self.closing = threading.Event()
        self._waiting: Counter[str] = Counter()  # by what they wait for
        self._random = random.Random(seed)
        self._decks: dict[str, list[str | None]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def holding(self, requests: str) -> Iterator[None]:
        """Hold requests in a block."""
        self.held = requests
        try:
            yield
        finally:
            self.held = ""

    @property
    def waiting(self) -> int:
        """How many requests wait because of `held`."""
        return self._waiting[self.held]

    @contextlib.contextmanager
    def counted(self, held: str) -> Iterator[None]:
        """Count a request as waiting."""
        with self._lock:
            self._waiting[held] += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting[held] -= 1

    def due(self, method: str, path: str) -> str | None:
        """The fault for this request. It is counted."""
        with self._lock:
            self.seen.append((method, path))
            fault = self._due(method, path)
            if fault:
                self.faults[fault] += 1
            return fault

    def _due(self, method: str, path: str) -> str | None:
        if self.always:
            return self.always if self.only in path else None
        if self.queue:
            return self.queue.pop(0)[1] if self.queue[0][0] == method else None
        if not self.rate:
            return None
        # Without replacement: each kind comes at its rate, even among few requests.
        deck = self._decks.setdefault(method, [])
        if not deck:
            kinds = [kind for kind in KINDS if kind != PARTIAL or method == "GET"]
            deck += [*kinds, *[None] * max(round(1 / self.rate) - len(kinds), 0)]
            self._random.shuffle(deck)
        return deck.pop()

    def shutdown_request(self, request: Any) -> None:
        """Close at once. A regular end of the stream would hide the reset."""
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are expected."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._upstream = http.client.HTTPConnection(self.server.backend, timeout=60)

    def finish(self) -> None:
        self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._wait():
            return self._reset()
        fault = self.server.due(self.command, self.path)
        if fault in _ERRORS:
            return self._error(*_ERRORS[fault])
        if fault == RESET_BEFORE:
            return self._reset()
        if fault == SLOW:
            self.server.closing.wait(0.1)
        status, headers, answer = self._ask(body)
        if fault == RESET_AFTER:
            return self._reset()
        if fault == TIMEOUT:
            self.server.closing.wait(self.server.hold_s)
            return self._reset()
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), None)
        if length is None:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if fault == PARTIAL:
            self.wfile.write(answer[: len(answer) // 2])
            self.close_connection = True
            return None
        self.wfile.write(answer)
        return None

    def _wait(self) -> bool:
        """Wait while the request is held. False if the client is gone: then its request is never carried out."""
        held = self.server.held
        if not held or held not in f"{self.command} {self.path}":
            return True
        with self.server.counted(held), contextlib.suppress(ConnectionError):
            while self.server.held == held and not self.server.closing.is_set():
                self.wfile.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                self.server.closing.wait(0.1)
            self.connection.setblocking(False)
            try:
                return self.connection.recv(1, socket.MSG_PEEK) != b""
            except BlockingIOError:
                return True  # the client waits for its answer
            finally:
                self.connection.setblocking(True)
        return False

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        try:
            return self._ask_once(body)
        except ConnectionError:  # a backend that closes idle connections; that is no fault of ours to make
            self._upstream.close()
            return self._ask_once(body)

    def _ask_once(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The backend's answer. The backend checks the signature, so it must see the client's own Host."""
        left_out = _HOP_BY_HOP | ({"if-none-match"} if self.server.unconditional else set())
        path = self.path.replace("ifGenerationMatch=0", "") if self.server.unconditional else self.path
        self._upstream.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in left_out:
                self._upstream.putheader(name, value)
        self._upstream.putheader("Content-Length", str(len(body)))
        self._upstream.endheaders(body)
        response = self._upstream.getresponse()
        answer = response.read()
        kept = [pair for pair in response.getheaders() if pair[0].lower() not in _HOP_BY_HOP - {"content-length"}]
        return response.status, kept, answer

    def _error(self, status: int, code: str, message: str) -> None:
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


@contextlib.contextmanager
def fault_proxy(backend: str, **settings: Any) -> Iterator[FaultProxy]:
    """A running proxy."""
    proxy = FaultProxy(backend, **settings)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()
