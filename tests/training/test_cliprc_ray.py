"""CLIP-RC trained with Ray Train."""

from __future__ import annotations

import pytest
import torch
from test_cliprc_training import corpus, options, train  # noqa: F401

from proxyclip.pipeline.cluster.join import cluster
from proxyclip.storage.store import Storage
from proxyclip.training.cliprc import run, state
from proxyclip.training.cliprc.opening import open_training

pytestmark = pytest.mark.slow


def test_one_worker_gives_the_bytes_of_a_training_without_ray_and_two_agree(corpus):  # noqa: F811
    torch.set_num_threads(1)
    alone = train(options(corpus, "alone"))
    told: list[str] = []
    with cluster("local", verbose=False):
        for workers in (1, 2):
            made = options(corpus, f"{workers}", workers=workers, batch=2 // workers)
            run.execute(open_training(made), told.append)
    assert Storage(str(corpus / "1")).read(state.TRAINED) == alone
    two = state.read_history(Storage(str(corpus / "2")), 6)
    assert [row["iteration"] for row in two] == [2, 4, 6]
