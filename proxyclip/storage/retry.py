"""Requests that failed for a moment are made again: here, and in no layer below."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 20.0
# No new try later than this after the first one.
GIVE_UP_AFTER_S = 300.0

_lock = threading.Lock()
_retries = 0


def take_retries() -> int:
    """The requests that this process made again since it was last asked."""
    global _retries
    with _lock:
        taken, _retries = _retries, 0
    return taken


def max_attempts() -> int:
    """Tries for one request, the first included: AWS_MAX_ATTEMPTS, 8 where it is not set."""
    return int(_setting("AWS_MAX_ATTEMPTS", 8))


def read_timeout_s() -> float:
    """How long a store may be silent: PROXYCLIP_READ_TIMEOUT_S, 60 where it is not set."""
    return _setting("PROXYCLIP_READ_TIMEOUT_S", 60)


def _setting(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise ValueError(f"{name}: {text!r} found, a number above 0 wanted.")
    return value


def persist(request: Callable[[], T], attempts: int) -> T:
    """What `request` returns, or the last thing it raises.

    Made again, at most `attempts` times in all, while what it raises may pass. The pauses double from
    FIRST_DELAY_S to LONGEST_DELAY_S, and are cut by chance so that workers that failed together do not come back
    together.
    """
    global _retries
    started = time.monotonic()
    attempt = 1
    while True:
        try:
            return request()
        except Exception as error:
            delay_s = random.uniform(0.5, 1) * min(FIRST_DELAY_S * 2 ** (attempt - 1), LONGEST_DELAY_S)
            late = time.monotonic() + delay_s > started + GIVE_UP_AFTER_S
            if attempt >= attempts or late or not may_pass(error):
                raise
        with _lock:
            _retries += 1
        time.sleep(delay_s)
        attempt += 1


def may_pass(error: BaseException | None) -> bool:
    """Whether the same request can succeed a moment later: the store is busy or broken, or the line broke.

    A missing key or bucket and a refusal stay what they are.
    """
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = str(response.get("Error", {}).get("Code", ""))
            return status in _STATUSES or code in _CODES
        if _names(error) & _BROKEN_LINE:
            return True
        error = error.__cause__
    return False


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
# By name, since the packages that define them (botocore, aiohttp) are loaded for S3 alone.
_BROKEN_LINE = {
    "ConnectionError",
    "HTTPClientError",
    "TimeoutError",
    "IncompleteReadError",
    "ClientPayloadError",
    "ResponseParserError",
    "FlexibleChecksumError",
}


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
