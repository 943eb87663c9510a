"""What differs between two vocabularies, in plain lines for an error message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from proxyclip.vocabulary.checks import key
from proxyclip.vocabulary.names import Vocabulary

_SHOWN = 5  # entries on one line


def vocabulary_differences(new: Vocabulary, old: Vocabulary) -> list[str]:
    """One line for each kind of difference that can change a mask; no lines if the fingerprints are equal.

    For instance `2 classes added: "cat", "dog"`. Embeddings count as part of a vocabulary only if it brings its own:
    leave out those that a text tower computed.
    """
    if new.fingerprint == old.fingerprint:
        return []
    pairs = _same_classes(new, old)
    renamed, moved, changed = [], [], []
    for before, after in pairs.items():
        was, name = old.class_names[before], new.class_names[after]
        if was != name:
            renamed.append(f'"{was}" is now "{name}"')
        if before != after:
            moved.append(f'"{name}" from {before} to {after}')
        if old.class_queries[before] != new.class_queries[after]:
            changed.append(f'"{name}" ({_query_changes(new.class_queries[after], old.class_queries[before])})')
    kept = set(pairs.values())
    added = _quoted(name for index, name in enumerate(new.class_names) if index not in kept)
    removed = _quoted(name for index, name in enumerate(old.class_names) if index not in pairs)
    lines = [
        f"{_classes(entries)} {what}: {_cut(entries)}"
        for entries, what in (
            (added, "added"),
            (removed, "removed"),
            (renamed, "renamed"),
            (moved, "moved to another mask value"),
            (changed, "with changed queries"),
        )
        if entries
    ]
    return lines + _background_change(new, old, pairs) + _embedding_changes(new, old)


def _same_classes(new: Vocabulary, old: Vocabulary) -> dict[int, int]:
    """Old index to new index of the classes with the same name, or else the same name but for case, or queries."""
    pairs: dict[int, int] = {}
    for old_marks, new_marks in (
        (old.class_names, new.class_names),
        ([key(name) for name in old.class_names], [key(name) for name in new.class_names]),
        (old.class_queries, new.class_queries),
    ):
        taken = set(pairs.values())
        free: dict[object, list[int]] = {}
        for index, mark in enumerate(new_marks):
            if index not in taken:
                free.setdefault(mark, []).append(index)
        for index, mark in enumerate(old_marks):
            if index not in pairs and free.get(mark):
                pairs[index] = free[mark].pop(0)
    return dict(sorted(pairs.items()))


def _query_changes(new: Sequence[str], old: Sequence[str]) -> str:
    parts = []
    if added := _quoted(query for query in new if query not in old):
        parts.append(f"added {_cut(added)}")
    if removed := _quoted(query for query in old if query not in new):
        parts.append(f"removed {_cut(removed)}")
    return "; ".join(parts) or "the same in another order"


def _background_change(new: Vocabulary, old: Vocabulary, pairs: Mapping[int, int]) -> list[str]:
    if old.background is None and new.background is None:
        return []
    if old.background is not None and pairs.get(old.background, -1) == new.background:
        return []
    was, now = (
        "none" if vocabulary.background is None else f'"{vocabulary.class_names[vocabulary.background]}"'
        for vocabulary in (old, new)
    )
    return [f"background changed: from {was} to {now}"]


def _embedding_changes(new: Vocabulary, old: Vocabulary) -> list[str]:
    if new.embeddings is None and old.embeddings is None:
        return []
    if new.embeddings is None or old.embeddings is None:
        one, other = ("new", "old") if old.embeddings is None else ("old", "new")
        return [f"text embeddings: the {one} vocabulary brings its own, the {other} one does not"]
    widths = old.embeddings.shape[1], new.embeddings.shape[1]
    if widths[0] != widths[1]:
        return [f"text embeddings: from {widths[0]} to {widths[1]} dimensions"]
    before, after = _rows(old), _rows(new)
    changed = _quoted(query for query, rows in after.items() if before.get(query, rows) != rows)
    return [f"text embeddings changed for {_cut(changed)}"] if changed else []


def _rows(vocabulary: Vocabulary) -> dict[str, list[bytes]]:
    """The embedding of each query; several where classes share it."""
    rows: dict[str, list[bytes]] = {}
    assert vocabulary.embeddings is not None
    for query, row in zip(vocabulary.queries, vocabulary.embeddings, strict=True):
        rows.setdefault(query, []).append(row.tobytes())
    return rows


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _classes(entries: Sequence[str]) -> str:
    return f"{len(entries)} {'class' if len(entries) == 1 else 'classes'}"


def _cut(entries: Sequence[str]) -> str:
    """At most `_SHOWN` entries, and how many more there are."""
    more = len(entries) - _SHOWN
    return ", ".join(entries[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
