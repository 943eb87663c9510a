"""What the features of an output are: the networks and windows that made them, and their codec, in features.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from proxyclip.dataset.layout import FEATURES, FEATURES_FOLDER
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.run_record import RecipeMismatch, read_run
from proxyclip.dataset.validate import json_object
from proxyclip.storage.store import Storage, public_uri

# Raise when a reader of today could not read the features any more.
FEATURES_VERSION = 1


@dataclass(frozen=True)
class FeatureRecord:
    """What features.json says.

    codec: level of storage. dim: width of the text embeddings that fit. encoder: all that decides a feature, as nested
    plain values: the model, the windows and the hashes of the weights. settings: the options that chose them, by name,
    so that the same CLIP can embed another vocabulary.
    """

    codec: str
    dim: int
    encoder: dict[str, Any]
    settings: dict[str, Any]

    def to_json(self) -> bytes:
        """The bytes of features.json."""
        fields = {"version": FEATURES_VERSION, **asdict(self)}
        return (json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> FeatureRecord:
        """Read features.json. Raises ValueError for another version and for damaged fields."""
        fields = json_object(data, FEATURES)
        if fields.get("version") != FEATURES_VERSION:
            raise ValueError(
                f"{FEATURES}: the features have version {fields.get('version')}, but this version of proxyclip reads "
                f"{FEATURES_VERSION}. Use the version of proxyclip that made them, or delete the folder and make them "
                "again with --add-features."
            )
        kinds = {"codec": str, "dim": int, "encoder": dict, "settings": dict}
        for name, kind in kinds.items():
            if not isinstance(fields.get(name), kind):
                raise ValueError(
                    f"{FEATURES}: {name} is {fields.get(name)!r}; it must have type {kind.__name__}. Delete the file; "
                    "the labelling command with --add-features writes it again."
                )
        return cls(**{name: fields[name] for name in kinds})


def features_of(storage: Storage) -> Storage:
    """Where an output keeps its features and their commits."""
    return Storage(f"{storage.uri}/{FEATURES_FOLDER}")


def features_manifest(storage: Storage) -> Manifest:
    """The plan of an output with the commits of its features."""
    return Manifest(storage, features_of(storage))


def read_features_record(storage: Storage) -> FeatureRecord | None:
    """The record of an output's features; None if it keeps none."""
    try:
        data = features_of(storage).read(FEATURES)
    except FileNotFoundError:
        return None
    try:
        return FeatureRecord.from_json(data)
    except ValueError as error:
        raise ValueError(f"{public_uri(storage.uri)}: {error}") from error


def require_features(storage: Storage) -> FeatureRecord:
    """The record of an output's features. Raises FileNotFoundError, with what to do, if it keeps none."""
    record = read_features_record(storage)
    if record is not None:
        return record
    where = public_uri(storage.uri)
    run = read_run(storage)
    if run is None:
        raise FileNotFoundError(f"{where}: there is no labelled corpus; give the --output of a labelling job.")
    if run.source is not None:
        raise FileNotFoundError(
            f"{where} was itself relabelled, from {run.source}, and has no features; give that one as --source."
        )
    raise FileNotFoundError(
        f"{where} has no features. Run its labelling command again with --add-features: that encodes the images once "
        "more and keeps the masks."
    )


def begin_features(storage: Storage, record: FeatureRecord) -> None:
    """Write features.json, or go on if it is the same. Raises RecipeMismatch if other features are kept already."""
    if features_of(storage).create(FEATURES, record.to_json()):
        return
    refuse_other_features(storage, record)


def refuse_other_features(storage: Storage, record: FeatureRecord) -> None:
    """Raise RecipeMismatch if an output keeps features of another codec or encoder."""
    found = read_features_record(storage)
    if found is None:
        return
    if found.codec != record.codec:
        raise RecipeMismatch(
            f"{public_uri(storage.uri)} keeps its features as {found.codec!r}, not as {record.codec!r}; give "
            f"--codec {found.codec}."
        )
    if _plain(found.encoder) != _plain(record.encoder):
        raise RecipeMismatch(
            f"{public_uri(storage.uri)} keeps features of another network, other windows or another precision. Give "
            "the settings that they were made with, or another --output."
        )


def _plain(values: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(values, sort_keys=True))
