"""One small corpus, the options to label it with, and one cluster for the runs of a file."""

from __future__ import annotations

import pytest
from labelling import draw, embedded, small_options

from proxyclip.pipeline.cluster.join import cluster


@pytest.fixture(scope="module")
def one_cluster():
    """One local cluster for all in-process runs; jobs started as commands have their own."""
    with cluster("local", verbose=False):
        yield


@pytest.fixture
def corpus(tmp_path):
    draw(tmp_path / "images", 10)
    return tmp_path / "images"


@pytest.fixture
def options(corpus):
    return embedded(small_options(corpus, shard_size=3))
