"""Fixtures: an output whose images have odd names."""

from __future__ import annotations

import pytest
from exports import ODD, label


@pytest.fixture(scope="session")
def output(tmp_path_factory):
    return label(tmp_path_factory.mktemp("odd"), ODD)
