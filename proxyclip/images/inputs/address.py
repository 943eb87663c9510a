"""The address of an input: where it lies, and which columns of its tables count."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase

from proxyclip.images.ref import EXTENSIONS
from proxyclip.storage.store import Storage, public_uri

TABLES = (".csv", ".csv.gz", ".txt", ".txt.gz")
MANIFEST = "manifest.json"
_FILES = (*EXTENSIONS, *TABLES, ".tar", ".parquet", MANIFEST)
_COLUMN = re.compile(r";(uri|image|key)-column=([^;]+)$")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class InputAddress:
    """`place`, and columns behind it: `s3://bucket/data;image-column=jpg`.

    Written as one text, an input is the same for every command that reads its images, and another column is another
    input.
    """

    place: str
    uri_column: str | None = None
    image_column: str | None = None
    key_column: str | None = None

    @classmethod
    def parse(cls, text: str) -> InputAddress:
        """Read the text of an address. The place becomes absolute."""
        columns: dict[str, str] = {}
        place = text
        while found := _COLUMN.search(place):
            columns.setdefault(f"{found[1]}_column", found[2])
            place = place[: found.start()]
        return cls(Storage(place).uri, **columns)

    def with_columns(self, **columns: str | None) -> InputAddress:
        """The address with columns that were given apart from it. None changes nothing."""
        for name, column in columns.items():
            before = getattr(self, name)
            if column is not None and before not in (None, column):
                raise ValueError(
                    f"--{name.replace('_', '-')} is {column!r}, but --input says {before!r}; give it once."
                )
            if column is not None and not re.fullmatch("[^;]+", column):
                raise ValueError(
                    f"--{name.replace('_', '-')} is {column!r}; give the name of a column, without a semicolon."
                )
        return replace(self, **{name: column for name, column in columns.items() if column is not None})

    def __str__(self) -> str:
        named = [(field.name, getattr(self, field.name)) for field in fields(self)[1:]]
        return self.place + "".join(f";{name.replace('_', '-')}={value}" for name, value in named if value is not None)


def input_address(text: str, **columns: str | None) -> str:
    """The text of an input's address, absolute, with the columns that were given apart from it."""
    return str(InputAddress.parse(text).with_columns(**columns))


def input_storage(input_uri: str) -> Storage:
    """The storage that the uris of an input are relative to: the input itself, or the folder of its file or files."""
    return located(InputAddress.parse(input_uri))[0]


def searched_folder(input_uri: str) -> Storage | None:
    """The folder that is searched for images, or None if the input names its files: then others may lie beside them."""
    storage, name = located(InputAddress.parse(input_uri))
    return storage if name is None or "*" in name else None


def located(address: InputAddress) -> tuple[Storage, str | None]:
    """The folder of an input, and the name or the pattern of its files; None: all files of the folder."""
    storage = Storage(address.place)
    folder, _, name = storage.uri.rpartition("/")
    if folder.endswith(":/"):
        return storage, None
    around = Storage(folder or "/")
    if _is_pattern(name):
        return (storage, None) if storage.local and storage.local.is_dir() else (around, name)
    if name.lower().endswith(_FILES) and around.exists(name):
        return around, name
    return storage, None


def named_files(storage: Storage, name: str) -> list[str]:
    """The keys of the files that a name or pattern of `located` stands for, in order.

    `{00000..00999}` stands for each of these numbers, all of which must exist, and `*` for any text.
    """
    if not _is_pattern(name):
        return [name]
    if "*" not in name:
        return _numbered(name)
    patterns = [_literal(pattern) for pattern in _numbered(name)]
    keys, num_files = [], 0
    for entry in storage.walk():
        if "/" not in entry.key:
            num_files += 1
            if any(fnmatchcase(entry.key, pattern) for pattern in patterns):
                keys.append(entry.key)
    if not keys:
        raise FileNotFoundError(
            f"input {public_uri(storage.uri)}/{name}: none of the {num_files} files there has such a name."
        )
    return sorted(keys)


def _is_pattern(name: str) -> bool:
    return "*" in name or _RANGE.search(name) is not None


def _numbered(name: str) -> list[str]:
    found = _RANGE.search(name)
    if found is None:
        return [name]
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise ValueError(f"input {name}: the range {found[0]} is empty; write the smaller number first.")
    numbers = (f"{number:0{len(found[1])}d}" for number in range(first, last + 1))
    return [each for number in numbers for each in _numbered(name[: found.start()] + number + name[found.end() :])]


def _literal(pattern: str) -> str:
    """A pattern of fnmatch in which only `*` has a meaning."""
    return re.sub(r"[\[?]", lambda found: f"[{found[0]}]", pattern)
