"""Licences of weights."""

from __future__ import annotations

import pytest

from proxyclip.recipes.licences import forbids_commercial_use


@pytest.mark.parametrize(
    ("licence", "forbidden"),
    [
        ("CC-BY-NC-4.0", True),
        ("cc-by-nc-sa-4.0", True),
        ("fair-noncommercial-research-license", True),
        ("Non-Commercial", True),
        ("apple-amlr", True),
        ("Apache-2.0", False),
        ("MIT", False),
        ("dinov3-license", False),
        ("NVIDIA-open-model-license", False),
        ("cc-by-4.0", False),
        ("", False),
    ],
)
def test_licences_that_forbid_commercial_use_are_told_by_their_names(licence, forbidden):
    assert forbids_commercial_use(licence) == forbidden
