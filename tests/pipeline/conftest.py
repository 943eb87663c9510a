"""One small corpus, the options to label it with, and one cluster for the runs of a file."""

from __future__ import annotations

import pytest
from labelling import NAMES, draw

from proxyclip.pipeline.cluster import cluster
from proxyclip.pipeline.options import LabelOptions


@pytest.fixture(scope="module")
def one_cluster():
    """One local cluster for all in-process runs; jobs started as commands have their own."""
    with cluster("local", verbose=False):
        yield


@pytest.fixture(scope="session")
def vocabulary_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "five.txt"
    path.write_text("\n".join(NAMES))
    return path


@pytest.fixture
def corpus(tmp_path):
    draw(tmp_path / "images", 10)
    return tmp_path / "images"


@pytest.fixture
def options(corpus, tmp_path, vocabulary_file):
    return LabelOptions(
        input=str(corpus),
        output=str(tmp_path / "out"),
        vocabulary=str(vocabulary_file),
        preset="demo",
        short_side=56,
        crop=56,
        stride=56,
        shard_size=3,
        threads=1,
    )
