"""Files of the Hugging Face hub: from the local cache, or downloaded if the hub answers at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# How long the hub may take to say that it has a file; HF_HUB_ETAG_TIMEOUT changes it. The download has no limit.
ANSWER_S = 3

_CHATTY = ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "filelock")


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of the hub. names: the names that it may have, the preferred one first."""

    repository: str
    names: tuple[str, ...]

    def cached(self) -> Path | None:
        """The file in the local cache, or None. Asks no network."""
        from huggingface_hub import try_to_load_from_cache

        for name in self.names:
            if isinstance(path := try_to_load_from_cache(self.repository, name), str):
                return Path(path)
        return None

    def download(self) -> Path:
        """Download the file into the cache. FileNotFoundError says in one line why it cannot be had."""
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        answer_s = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or ANSWER_S)
        deadline = time.monotonic() + 2 * answer_s  # one to connect, one to read
        with _quiet_loggers():
            for name in self.names:
                url = hf_hub_url(self.repository, name)
                try:
                    _within(deadline - time.monotonic(), partial(get_hf_file_metadata, url, timeout=answer_s))
                    return Path(hf_hub_download(self.repository, name, etag_timeout=answer_s))
                except EntryNotFoundError as error:
                    if isinstance(error, FileNotFoundError):  # the cache lacks it, since the hub cannot be reached
                        raise FileNotFoundError(_one_line(error.__cause__ or error)) from error
                except concurrent.futures.TimeoutError as error:
                    reason = f"{constants.ENDPOINT} does not answer within {2 * answer_s:g} s"
                    raise FileNotFoundError(reason) from error
                except Exception as error:  # HTTP libraries differ between versions of huggingface_hub
                    raise FileNotFoundError(_one_line(error)) from error
        raise FileNotFoundError("the repository has no such file")


def _within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns; TimeoutError after `seconds`.

    A request's own timeout is not enough: looking up the host has none, and huggingface_hub may ask other things first.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(timeout=max(seconds, 0))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextlib.contextmanager
def _quiet_loggers() -> Iterator[None]:
    """Silence the libraries' messages about retries: the error says all of it."""
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
