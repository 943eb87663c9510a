"""Fixtures: an empty output on disk or over S3, and segments short enough to fill."""

from __future__ import annotations

import os
import uuid

import pytest

from proxyclip.dataset import commits
from proxyclip.storage.store import Storage


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power is cut here


@pytest.fixture
def short_segments(request, monkeypatch):
    """Segments of three shards, or of the SHARDS_PER_SEGMENT of the test's module."""
    size = getattr(request.module, "SHARDS_PER_SEGMENT", 3)
    monkeypatch.setattr(commits, "SHARDS_PER_SEGMENT", size)


@pytest.fixture
def disk(tmp_path):
    return Storage(str(tmp_path / "out"))


@pytest.fixture(params=["disk", "s3"])
def storage(request):
    if request.param == "disk":
        return request.getfixturevalue("disk")
    return Storage(request.getfixturevalue("s3").uri(f"bucket/{uuid.uuid4().hex}"))
