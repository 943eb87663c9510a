"""Retries: a request that fails for a moment is sent again, only here and in no layer below."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 20.0
# No try begins later than this after the first one.
GIVE_UP_AFTER_S = 300.0


class Retries:
    """The number of retries in a `count_retries` block so far."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add_one(self) -> None:
        with self._lock:
            self.count += 1


_blocks: ContextVar[tuple[Retries, ...]] = ContextVar("blocks", default=())


@contextlib.contextmanager
def count_retries() -> Iterator[Retries]:
    """Count the retries inside a block: `with count_retries() as retries: ...`, then `retries.count`.

    The block counts its own thread and the functions it gave to other threads by `carry`. An outer block also counts
    what its inner blocks count. A generator must not `yield` inside the block: it would count its caller's retries.
    """
    retries = Retries()
    token = _blocks.set((*_blocks.get(), retries))
    try:
        yield retries
    finally:
        _blocks.reset(token)


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function for another thread: the blocks around this call count its retries there."""
    blocks = _blocks.get()

    @functools.wraps(function)
    def counted(*args: P.args, **kwargs: P.kwargs) -> T:
        token = _blocks.set(blocks)
        try:
            return function(*args, **kwargs)
        finally:
            _blocks.reset(token)

    return counted


def persist(request: Callable[[], T], attempts: int) -> T:
    """Make a request up to `attempts` times, until it succeeds or fails with an error that will not pass.

    The pauses double from FIRST_DELAY_S to LONGEST_DELAY_S. A random part of each is cut, so that workers that
    failed together do not come back together. Raises what the last try raised.
    """
    give_up = time.monotonic() + GIVE_UP_AFTER_S
    attempt = 1
    while True:
        try:
            return request()
        except Exception as error:
            pause_s = random.uniform(0.5, 1) * min(FIRST_DELAY_S * 2 ** (attempt - 1), LONGEST_DELAY_S)
            if attempt >= attempts or time.monotonic() + pause_s > give_up or not may_pass(error):
                raise
        for retries in _blocks.get():
            retries.add_one()
        time.sleep(pause_s)
        attempt += 1


def may_pass(error: BaseException | None) -> bool:
    """Whether the same request can succeed a moment later: the store is overloaded or failing, or the line broke.

    A missing key or bucket and a refusal do not pass.
    """
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = str(response.get("Error", {}).get("Code", ""))
            return status in _STATUSES or code in _CODES
        if (found := _status(error)) is not None:
            return found in _STATUSES
        if {kind.__name__ for kind in type(error).__mro__} & _BROKEN_LINE:
            return True
        error = error.__cause__
    return False


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error of Azure's or Google's client."""
    for name in ("status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, (int, str)) and str(value).isdigit():
            return int(value)
    return None


_STATUSES = {408, 409, 429, 500, 502, 503, 504}  # 409: two conditional writes at the same moment
_CODES = {
    "InternalError",
    "SlowDown",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "RequestTimeout",
    "RequestTimeoutException",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
}
# By name: the packages that define them (botocore, aiohttp, azure.core, gcsfs) are loaded for their stores only.
_BROKEN_LINE = {
    "ConnectionError",
    "HTTPClientError",
    "TimeoutError",
    "IncompleteReadError",
    "ClientPayloadError",
    "ResponseParserError",
    "FlexibleChecksumError",
    "ClientConnectionError",
    "ServiceRequestError",
    "ServiceResponseError",
    "ChecksumError",
}


def max_attempts() -> int:
    """Tries for one request, the first included: AWS_MAX_ATTEMPTS, default 8."""
    return int(_setting("AWS_MAX_ATTEMPTS", 8))


def read_timeout_s() -> float:
    """Seconds to wait for an answer of the store: PROXYCLIP_READ_TIMEOUT_S, default 60."""
    return _setting("PROXYCLIP_READ_TIMEOUT_S", 60)


def _setting(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise ValueError(f"{name} is {text!r}, which is not a number above 0; set it to one or unset it.")
    return value
