"""A name that does not exist is refused with the nearest one and with all that exist."""

from __future__ import annotations

import pytest

from proxyclip.recipes.names import look_up

SIZES = {"small": 1, "medium": 2, "large": 3}


def test_a_known_name_gives_its_entry():
    assert look_up(SIZES, "medium", "size") == 2


def test_an_unknown_name_suggests_the_nearest_and_lists_all():
    with pytest.raises(
        ValueError, match=r"^Unknown size 'smal'\. Did you mean 'small'\? Sizes: small, medium, large\.$"
    ):
        look_up(SIZES, "smal", "size")


@pytest.mark.parametrize("what", ["quality", "proxy"])
def test_a_name_like_no_other_gets_the_list_alone(what):
    plural = {"quality": "Qualities", "proxy": "Proxies"}[what]
    with pytest.raises(ValueError, match=rf"^Unknown {what} 'zzz'\. {plural}: small, medium, large\.$"):
        look_up(SIZES, "zzz", what)


def test_an_empty_table_says_so():
    with pytest.raises(ValueError, match=r"Sizes: none\.$"):
        look_up({}, "small", "size")
