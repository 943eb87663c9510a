"""The methods as data."""

from __future__ import annotations

import pytest

from proxyclip.recipes.methods import METHODS, method_named


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_its_name(name):
    assert method_named(name) == METHODS[name]


@pytest.mark.parametrize("residual", [True, False])
def test_the_residual_path_can_be_set(residual):
    assert method_named("clip", residual).residual is residual
    assert method_named("clearclip", residual).residual is residual


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"Unknown method 'nacilp'. Did you mean 'naclip'\?.*proxyclip"):
        method_named("nacilp")


def test_a_method_with_a_proxy_takes_no_residual():
    with pytest.raises(ValueError, match=r"'proxyclip'.*leave `residual` out"):
        method_named("proxyclip", residual=True)
