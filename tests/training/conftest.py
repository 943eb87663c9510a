"""Fixture: a labelled output to train on."""

from __future__ import annotations

import os

import pytest
from trainable import make_output


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def output(tmp_path):
    return make_output(str(tmp_path))
