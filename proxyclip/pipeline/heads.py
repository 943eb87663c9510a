"""Heads in storage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.heads import Head, HeadError
from proxyclip.vocabulary.names import Vocabulary


def load_head(uri: str) -> Head:
    """The head in a file. Raises FileNotFoundError or HeadError, with the file's name."""
    folder, slash, name = uri.rpartition("/")
    data = Storage(folder or slash or ".").read(name)
    try:
        return Head.from_bytes(data)
    except HeadError as error:
        raise HeadError(f"{public_uri(uri)}: {error}") from error


def with_head(head: Head | None) -> dict[str, str]:
    """What a head adds to a recipe. Without one, recipes are as they were before there were heads."""
    return {} if head is None else {"head": head.fingerprint}


def refuse_encoder(head: Head, uri: str | None, encoder: dict[str, Any]) -> None:
    """Raise HeadError, with the file's name, if a head does not fit what makes the features."""
    try:
        head.refuse_encoder(encoder)
    except HeadError as error:
        raise HeadError(f"--head {public_uri(str(uri))}: {error}") from error


def vocabulary_of(head: Head, uri: str | None, given: Vocabulary | None) -> Vocabulary:
    """The vocabulary of a head, with the name and palette of the one that is given beside it.

    Raises HeadError, with the file's name, if the given one differs.
    """
    if given is None:
        return head.vocabulary
    try:
        head.refuse_vocabulary(given)
    except HeadError as error:
        raise HeadError(f"--head {public_uri(str(uri))}: {error}") from error
    return replace(given, embeddings=head.vocabulary.embeddings)
