"""What a format is: images in, files out. It neither reads nor writes storage."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from proxyclip.export.pictures import Picture
from proxyclip.export.selection import ExportImage

# Gives the parts of all shards, in order of shard, from the first one each time that it is called.
Parts = Callable[[], Iterator[bytes]]

# A key and the pieces of its content.
WholeFile = tuple[str, Iterable[bytes]]


@dataclass(frozen=True)
class Target:
    """What a format needs to know besides the images.

    colours: one for each class. ignore: the value of a mask's pixels without a class. input, destination: URIs
    without credentials. min_area, image_prefix: as in `ExportOptions`.
    """

    name: str
    class_names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore: int
    input: str
    destination: str
    min_area: int = 0
    image_prefix: str | None = None


@dataclass(frozen=True)
class ShardFiles:
    """What a shard becomes. files: by key. part: what `finish` needs of it, for files that hold all shards."""

    files: dict[str, bytes] = field(default_factory=dict)
    part: bytes = b""


class Format(ABC):
    """One way to lay out labels. The same images always give the same bytes.

    carries_images: whether the images themselves are exported too. named_after_images: whether files are called
    like the images without their suffix; else an image is found by its uri.
    Creating one raises ImportError if a library is missing.
    """

    carries_images: ClassVar[bool] = False
    named_after_images: ClassVar[bool] = False

    def __init__(self, target: Target) -> None:
        self.target = target

    def refuses(self, uri: str) -> str | None:
        """Why an image cannot be exported, or None."""
        return None

    @abstractmethod
    def shard(self, shard: int, images: Sequence[tuple[ExportImage, Picture | None]]) -> ShardFiles:
        """The files of a shard. Each image has its picture if the format carries images."""

    @abstractmethod
    def finish(self, parts: Parts) -> Iterator[WholeFile]:
        """The files that hold all shards."""


def json_text(value: Any) -> str:
    """A value as JSON in one line. Floats keep their shortest form."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_lines(values: Iterable[Any]) -> bytes:
    """Values as JSON, one a line: the usual form of a part."""
    return "".join(f"{json_text(value)}\n" for value in values).encode()


def read_lines(parts: Parts) -> Iterator[Any]:
    """The values of all parts that are JSON lines."""
    for part in parts():
        yield from map(json.loads, part.decode().split("\n")[:-1])


def missing_library(library: str, extra: str, error: ImportError) -> ImportError:
    """What to raise if a library of a format cannot be imported."""
    return ImportError(
        f"This format needs {library}, which cannot be imported ({error}): pip install 'proxyclip[{extra}]'"
    )
