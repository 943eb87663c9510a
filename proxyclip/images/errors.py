"""ImageError: why one image cannot be labelled."""

from __future__ import annotations

from typing import Literal

Status = Literal["empty", "decode_failed", "too_large", "fetch_failed", "decoder_crashed", "timed_out"]


class ImageError(Exception):
    """An image that cannot be labelled. The same bytes always give the same `status` and `reason`."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"
