"""The table of codecs: vocabularies of any size, and one row a codec."""

from __future__ import annotations

import numpy as np
import pytest
from performance.features import measure_codecs, mixed_vocabulary
from reference import SHARED
from tiny import random_vocabulary

REAL = SHARED / "real"


@pytest.mark.parametrize("count", [3, 7, 40])
def test_queries_are_those_of_a_vocabulary_and_then_mixtures_of_two(count):
    of = random_vocabulary(7)
    mixed = mixed_vocabulary(of, count)
    assert mixed.num_classes == count
    cosines = mixed.embeddings @ of.embeddings.T
    own = np.isclose(cosines.max(axis=1), 1)
    assert own.tolist() == [index < 7 for index in range(count)]
    assert len(set(cosines[own].argmax(axis=1))) == min(count, 7)
    parts = np.linalg.lstsq(of.embeddings.T, mixed.embeddings.T, rcond=None)[0]
    assert ((np.abs(parts) > 1e-4).sum(axis=0) <= 2).all()
    assert np.array_equal(mixed.embeddings, mixed_vocabulary(of, count).embeddings)


@pytest.mark.slow
def test_every_codec_has_a_row():
    if not REAL.is_dir():
        pytest.skip("the real weights and photographs are not here")
    none, *codecs = measure_codecs(REAL, every=130)
    assert [row["codec"] for row in codecs] == ["exact", "compact"]
    assert all(row.keys() == none.keys() for row in codecs)
    assert all(float(row["largest error"]) <= float(row["bound"]) for row in codecs)
    sizes = [float(row["KiB an image"]) for row in (none, *codecs)]
    assert sizes == sorted(sizes, reverse=True)
