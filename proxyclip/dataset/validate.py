"""Checks of what is read back from an output: others may have changed its files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from proxyclip.dataset.layout import RUN, data_key
from proxyclip.dataset.rows import ALL_KINDS, PLAN

# Far beyond any run: a larger number is damage.
_MAX_COUNT = 10**12
_MAX_BYTES = 2**60

_COMMIT_FIELDS = ("shard", "files", "images", "labelled", "failed")
_FILE_FIELDS = ("key", "rows", "size_bytes", "sha256")
_RUN_FIELDS = {"input": str, "recipe": dict, "fingerprint": str, "packages": dict}
_PLAN_COUNTS = ("first_shard", "num_shards", "num_images", "num_superseded")


def json_object(data: bytes, key: str) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError, with the file's key, if it holds anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(key, f"the file's {len(data)} bytes are not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _damaged(key, f"the file holds a JSON {type(value).__name__} instead of an object")
    return value


def commit_fields(data: bytes, key: str) -> dict[str, Any]:
    """The fields of the commit in a file, as `Commit` takes them, but its files as plain values.

    Raises ValueError if a field is missing, unknown, of another type or far too large, if the numbers contradict
    each other, or if a file's key does not follow from its shard, kind and hash.
    """
    fields = json_object(data, key)
    _check_names(key, fields, _COMMIT_FIELDS)
    _check_counts(key, fields, ("shard", "images", "labelled", "failed"), _MAX_COUNT)
    if fields["images"] != fields["labelled"] + fields["failed"]:
        raise _damaged(
            key, f"images is {fields['images']}, but labelled {fields['labelled']} and failed {fields['failed']}"
        )
    files = fields["files"]
    if not isinstance(files, dict):
        raise _damaged(key, f"files is {files!r} instead of an object")
    for kind, file in files.items():
        if kind not in ALL_KINDS:
            raise _damaged(key, f"there is a file of kind {kind!r}; the kinds are {', '.join(ALL_KINDS)}")
        if not isinstance(file, dict):
            raise _damaged(key, f"the file of kind {kind!r} is {file!r} instead of an object")
        _check_file(f"{key}, {kind}", file, kind, fields["shard"])
    labelled = "features" if "features" in files else "masks"
    for kind, count in ((labelled, "labelled"), ("failures", "failed")):
        rows = files[kind]["rows"] if kind in files else 0
        if rows != fields[count]:
            raise _damaged(key, f"{count} is {fields[count]}, but the file of {kind} has {rows} rows")
    return fields


def run_fields(data: bytes, schema_version: int) -> dict[str, Any]:
    """The fields of run.json. They are not checked if the schema version is another one: the caller refuses it."""
    fields = json_object(data, RUN)
    version = fields.get("schema_version")
    if type(version) is not int:
        raise _damaged(RUN, f"schema_version is {version!r} instead of a number")
    if version == schema_version:
        for name, kind in _RUN_FIELDS.items():
            if not isinstance(fields.get(name), kind):
                raise _damaged(RUN, f"{name} is {fields.get(name)!r}; it must have type {kind.__name__}")
        if not isinstance(fields.get("source", ""), str):
            raise _damaged(RUN, f"source is {fields['source']!r}; it must have type str")
    return fields


def plan_head(metadata: Mapping[bytes, bytes] | None, key: str) -> dict[str, int]:
    """The numbers in the footer of a part of the plan, by name."""
    numbers = {}
    for name in _PLAN_COUNTS:
        text = (metadata or {}).get(name.encode(), b"missing").decode(errors="replace")
        if not re.fullmatch("[0-9]{1,12}", text):
            raise _damaged(key, f"{name} in the file's metadata is {text!r} instead of a number")
        numbers[name] = int(text)
    return numbers


def check_table(table: pa.Table, schema: pa.Schema, key: str) -> pa.Table:
    """The table, if it has the columns of a schema in their order, and nulls only where the schema allows them."""
    if table.schema.names != schema.names:
        raise _damaged(key, f"the columns are {', '.join(table.schema.names)} instead of {', '.join(schema.names)}")
    for field in schema:
        column = table[field.name]
        if column.type != field.type:
            raise _damaged(key, f"column {field.name} has type {column.type} instead of {field.type}")
        if column.null_count and not field.nullable:
            raise _damaged(key, f"column {field.name} has {column.null_count} nulls; it must have none")
    return table


def check_plan(table: pa.Table, shards: range, key: str) -> pa.Table:
    """A part of the plan, if it has the columns of a plan, shards among `shards` only, and sensible sizes.

    A uri may be any text. Object stores hold keys with ".." or a leading "/": `Storage` refuses to read them, so
    that such an image fails alone.
    """
    check_table(table, PLAN, key)
    bounds = {
        "shard": (shards.start, shards.stop - 1),
        "replaces": (0, shards.start - 1),
        "size_bytes": (0, _MAX_BYTES),
    }
    for name, (low, high) in bounds.items():
        values = pc.min_max(table[name]).as_py()
        if values["min"] is not None and not low <= values["min"] <= values["max"] <= high:
            raise _damaged(
                key, f"column {name} has values from {values['min']} to {values['max']}; {low} to {high} are possible"
            )
    if pc.any(pc.equal(pc.binary_length(table["uri"]), 0)).as_py():
        raise _damaged(key, "column uri has an empty value")
    return table


def leads_out(uri: str) -> bool:
    """Whether a key, taken as a path below a folder, leads out of that folder."""
    return not uri or uri.startswith("/") or "\0" in uri or ".." in uri.split("/")


def _damaged(key: str, what: str) -> ValueError:
    return ValueError(
        f"{key}: {what[:500]}. The file is damaged, or was not written by proxyclip: delete it, or use another "
        "--output."
    )


def _check_file(key: str, file: Mapping[str, Any], kind: str, shard: int) -> None:
    _check_names(key, file, _FILE_FIELDS)
    _check_counts(key, file, ("rows",), _MAX_COUNT)
    _check_counts(key, file, ("size_bytes",), _MAX_BYTES)
    sha256 = file["sha256"]
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise _damaged(key, f"sha256 is {sha256!r} instead of 64 hex digits")
    if file["key"] != data_key(kind, shard, sha256):
        raise _damaged(key, f"key is {file['key']!r} instead of {data_key(kind, shard, sha256)!r}")


def _is_count(value: Any, limit: int = _MAX_COUNT) -> bool:
    return type(value) is int and 0 <= value <= limit


def _check_names(key: str, fields: Mapping[str, Any], expected: tuple[str, ...]) -> None:
    if fields.keys() != set(expected):
        raise _damaged(
            key, f"the fields are {', '.join(sorted(fields)) or 'missing'} instead of {', '.join(sorted(expected))}"
        )


def _check_counts(key: str, fields: Mapping[str, Any], names: tuple[str, ...], limit: int) -> None:
    for name in names:
        if not _is_count(fields[name], limit):
            raise _damaged(key, f"{name} is {fields[name]!r} instead of a whole number from 0 to {limit}")
