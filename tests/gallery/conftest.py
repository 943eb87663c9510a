"""Fixtures of galleries."""

from __future__ import annotations

from pathlib import Path

import pytest
from gallery_data import Corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(str(tmp_path))
