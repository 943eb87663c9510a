"""Look up a setting by its name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def look_up(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry of `table` with this name.

    what: the singular of what the table holds ("preset"). Raises ValueError that suggests the nearest name and
    lists all names.
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown {what} {name!r}.{meant} {_plural(what).capitalize()}: {', '.join(table) or 'none'}.")


def _plural(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
