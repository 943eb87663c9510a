"""What is read back from an output is checked before it is believed: others may have written there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from proxyclip.dataset.rows import KINDS, PLAN

# Far beyond any run; numbers above them are nonsense, not size.
_MAX_COUNT = 10**12
_MAX_BYTES = 2**60

_COMMIT = ("shard", "files", "images", "labelled", "failed")
_FILE = ("key", "rows", "size_bytes", "sha256")
_RUN = {"input": str, "recipe": dict, "fingerprint": str, "packages": dict}


def json_object(data: bytes, key: str) -> dict[str, Any]:
    """The JSON object that a file holds. Raises ValueError naming the file where it holds anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{key}: {len(data)} bytes found that are no JSON ({error}); {_TO_DO}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{key}: {type(value).__name__} found, a JSON object wanted; {_TO_DO}")
    return value


def commit_fields(data: bytes) -> dict[str, Any]:
    """The fields of a commit, as `Commit` takes them, its files still as plain values.

    Raises ValueError where one is missing, unknown, of another type or absurd, where the numbers contradict each
    other, or where a file's key is not the one that its shard, kind and hash make.
    """
    fields = json_object(data, "a commit")
    shard = fields.get("shard")
    key = f"commits/{shard:06d}.json" if _is_count(shard) else "a commit"
    _check_names(key, fields, _COMMIT)
    _check_counts(key, fields, ("shard", "images", "labelled", "failed"), _MAX_COUNT)
    if fields["images"] != fields["labelled"] + fields["failed"]:
        _refuse(key, f"{fields['images']} images", f"{fields['labelled']} labelled and {fields['failed']} failed")
    if not isinstance(fields["files"], dict):
        _refuse(key, f"files {fields['files']!r}", "an object")
    for kind, file in fields["files"].items():
        if kind not in KINDS or not isinstance(file, dict):
            _refuse(key, f"a file of kind {kind!r}: {file!r}", f"one of {', '.join(KINDS)}")
        _check_names(f"{key}, {kind}", file, _FILE)
        _check_counts(f"{key}, {kind}", file, ("rows",), _MAX_COUNT)
        _check_counts(f"{key}, {kind}", file, ("size_bytes",), _MAX_BYTES)
        sha256 = file["sha256"]
        if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
            _refuse(f"{key}, {kind}", f"sha256 {sha256!r}", "64 hex digits")
        wanted = f"{kind}/{shard:06d}-{sha256[:12]}.parquet"
        if file["key"] != wanted:
            _refuse(f"{key}, {kind}", f"key {file['key']!r}", repr(wanted))
    for kind, count in (("masks", "labelled"), ("failures", "failed")):
        rows = fields["files"].get(kind, {"rows": 0})["rows"]
        if rows != fields[count]:
            _refuse(key, f"{rows} rows of {kind}", f"{fields[count]}, as many as {count}")
    return fields


def run_fields(data: bytes, schema_version: int) -> dict[str, Any]:
    """The fields of run.json. Those of another schema version are not looked at: the caller refuses it."""
    fields = json_object(data, "run.json")
    version = fields.get("schema_version")
    if type(version) is not int:
        _refuse("run.json", f"schema_version {version!r}", str(schema_version))
    if version == schema_version:
        for name, kind in _RUN.items():
            if not isinstance(fields.get(name), kind):
                _refuse("run.json", f"{name} {fields.get(name)!r}", f"a value of type {kind.__name__}")
    return fields


def plan_head(metadata: Mapping[bytes, bytes] | None, key: str) -> dict[str, int]:
    """The numbers in the foot of a part of the plan, by name."""
    numbers = {}
    for name in ("first_shard", "num_shards", "num_images", "num_superseded"):
        text = (metadata or {}).get(name.encode(), b"nothing").decode(errors="replace")
        if not re.fullmatch("[0-9]{1,12}", text):
            _refuse(key, f"{name} {text!r}", "a number in the file's metadata")
        numbers[name] = int(text)
    return numbers


def check_table(table: pa.Table, schema: pa.Schema, key: str) -> pa.Table:
    """The table, if it has the columns of a schema, in order, and no nulls where there may be none."""
    if table.schema.names != schema.names:
        _refuse(key, f"columns {', '.join(table.schema.names)}", ", ".join(schema.names))
    for field in schema:
        column = table[field.name]
        if column.type != field.type:
            _refuse(key, f"column {field.name} of {column.type}", str(field.type))
        if column.null_count and not field.nullable:
            _refuse(key, f"{column.null_count} nulls in column {field.name}", "none")
    return table


def check_plan(table: pa.Table, shards: range, key: str) -> pa.Table:
    """A part of the plan, if its columns are those of a plan, its shards among `shards`, its sizes no nonsense.

    A uri may be anything that is text: object stores hold keys with ".." or a leading "/", which `Storage` does not
    read, so that such an image fails by itself.
    """
    check_table(table, PLAN, key)
    bounds = {
        "shard": (shards.start, shards.stop - 1),
        "replaces": (0, shards.start - 1),
        "size_bytes": (0, _MAX_BYTES),
    }
    for name, (low, high) in bounds.items():
        found = pc.min_max(table[name]).as_py()
        if found["min"] is not None and not low <= found["min"] <= found["max"] <= high:
            _refuse(key, f"{name} from {found['min']} to {found['max']}", f"{low} to {high}")
    if pc.any(pc.equal(pc.binary_length(table["uri"]), 0)).as_py():
        _refuse(key, "an empty uri", "the key of an image")
    return table


def leads_out(uri: str) -> bool:
    """Whether a key, as a path below a folder, would not stay there."""
    return not uri or uri.startswith("/") or "\0" in uri or ".." in uri.split("/")


_TO_DO = "the file was not written by proxyclip or was changed since: delete it, or use another --output."


def _refuse(key: str, found: str, wanted: str) -> None:
    raise ValueError(f"{key}: {found[:500]} found, {wanted} wanted; {_TO_DO}")


def _is_count(value: Any, limit: int = _MAX_COUNT) -> bool:
    return type(value) is int and 0 <= value <= limit


def _check_names(key: str, fields: Mapping[str, Any], wanted: tuple[str, ...]) -> None:
    if fields.keys() != set(wanted):
        _refuse(key, f"fields {', '.join(sorted(fields)) or 'none'}", ", ".join(sorted(wanted)))


def _check_counts(key: str, fields: Mapping[str, Any], names: tuple[str, ...], limit: int) -> None:
    for name in names:
        if not _is_count(fields[name], limit):
            _refuse(key, f"{name} {fields[name]!r}", f"a whole number from 0 to {limit}")
