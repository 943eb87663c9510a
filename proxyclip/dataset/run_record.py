"""What a run is: the recipe in run.json, and the vocabulary with its text embeddings beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.config import SegmenterConfig, recipe_fields
from proxyclip.dataset.layout import EMBEDDINGS, HEAD, RUN, VOCABULARY
from proxyclip.dataset.rows import SCHEMA_VERSION
from proxyclip.dataset.validate import json_object, run_fields
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.heads import Head, HeadError
from proxyclip.vocabulary.names import Vocabulary, VocabularyError

# Settings that an option of the same name sets.
_OPTIONS = (
    *("input", "source", "method", "clip", "clip_pretrained", "proxy", "gaussian_std", "dtype"),
    *("short_side", "crop", "stride", "fast_decode"),
    *("head", "logit_scale", "background_threshold", "area_threshold", "ignore_below", "thresholds"),
    *("pamr_steps", "guided_radius", "presence", "active", "regions", "confidence_stride"),
)


class RecipeMismatch(ValueError):  # noqa: N818
    """The output was made with another recipe, vocabulary or input. `differences`: a line for each difference."""

    def __init__(self, message: str, differences: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.differences = tuple(differences)


@dataclass(frozen=True)
class RunRecord:
    """What run.json says of a run.

    input: URI of the images, stored without credentials. recipe: all that decides the bytes of a mask, as nested
    plain values. fingerprint: hash of the recipe. packages: versions of the packages that began the run; they are
    recorded, not compared. source: URI of the output whose features were relabelled; None if images were labelled.
    asked_dtype: the precision that was asked for, if the recipe has another because that is faster; else None.
    """

    input: str
    recipe: dict[str, Any]
    fingerprint: str
    packages: dict[str, str] = field(default_factory=dict)
    source: str | None = None
    asked_dtype: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", public_uri(Storage(self.input).uri))
        if self.source is not None:
            object.__setattr__(self, "source", public_uri(Storage(self.source).uri))

    def to_json(self) -> bytes:
        """The bytes of run.json."""
        fields = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        for name in ("source", "asked_dtype"):
            if fields[name] is None:
                del fields[name]
        return (json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> RunRecord:
        """Read run.json. Raises ValueError for an output of another schema version and for damaged fields."""
        fields = run_fields(data, SCHEMA_VERSION)
        version = fields["schema_version"]
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{RUN}: the output has schema_version {version}, but this version of proxyclip reads "
                f"{SCHEMA_VERSION}. Use the version of proxyclip that made the output, or another --output."
            )
        names = ("input", "recipe", "fingerprint", "packages", "source", "asked_dtype")
        return cls(**{name: fields[name] for name in names if name in fields})


def read_run(storage: Storage) -> RunRecord | None:
    """The record of an output's run; None if no run was begun there."""
    try:
        data = storage.read(RUN)
    except FileNotFoundError:
        return None
    try:
        return RunRecord.from_json(data)
    except ValueError as error:
        raise ValueError(f"{_shown_uri(storage)}: {error}") from error


def require_run(storage: Storage) -> RunRecord:
    """The record of an output's run. Raises FileNotFoundError if no run was begun there."""
    record = read_run(storage)
    if record is None:
        raise FileNotFoundError(f"{_shown_uri(storage)}: there is no {RUN}; give the --output of a labelling job.")
    return record


def begin_run(storage: Storage, record: RunRecord, vocabulary_json: dict[str, Any] | None) -> None:
    """Write run.json and vocabulary.json, or go on if they belong to the same run.

    vocabulary_json: `Vocabulary.to_json()`; None for an output that keeps features and has no masks.
    Raises RecipeMismatch if the output belongs to another run, also if that one was begun at this very moment.
    """
    if not storage.create(RUN, record.to_json()):
        vocabulary = None if vocabulary_json is None else Vocabulary.from_json(vocabulary_json)
        refuse_another_run(storage, record, vocabulary)
    if vocabulary_json is not None:
        storage.create(VOCABULARY, _vocabulary_bytes(vocabulary_json))


def refuse_another_run(
    storage: Storage,
    record: RunRecord,
    vocabulary: Vocabulary | None,
    *,
    recipe_defaults: Mapping[str, Any] | None = None,
) -> None:
    """Raise RecipeMismatch if the output was made with other settings, another vocabulary or another input.

    recipe_defaults: values, nested as in a recipe, of fields that recipes of earlier versions do not have yet; by
    default those of `SegmenterConfig`. An output in which no run was begun is fine.
    """
    recorded = read_run(storage)
    if recorded is None:
        return
    if recipe_defaults is None:
        recipe_defaults = {"segmenter": recipe_fields(SegmenterConfig())}
    differences = _differences(record, recorded, recipe_defaults)
    if record.recipe.get("vocabulary") != recorded.recipe.get("vocabulary"):
        differences += _vocabulary_lines(storage, record, recorded, vocabulary)
    if differences:
        lines = "".join(f"\n  {line}" for line in differences)
        raise RecipeMismatch(
            f"{_shown_uri(storage)} was made with other settings:{lines}\n"
            "Give another --output, or the settings that this output was made with.",
            differences,
        )


def write_vocabulary(storage: Storage, vocabulary: Vocabulary) -> None:
    """Write the vocabulary, and the text embeddings if it brings some. Files that exist stay as they are."""
    storage.create(VOCABULARY, _vocabulary_bytes(vocabulary.to_json()))
    if vocabulary.embeddings is not None:
        write_embeddings(storage, vocabulary.embeddings)


def write_embeddings(storage: Storage, embeddings: npt.NDArray[np.float32]) -> None:
    """Write the text embeddings (queries, D) unless the output has some."""
    from safetensors.numpy import save

    storage.create(EMBEDDINGS, save({"embeddings": np.ascontiguousarray(embeddings)}))


def has_embeddings(storage: Storage) -> bool:
    """Whether the output has text embeddings."""
    return storage.exists(EMBEDDINGS)


def write_head(storage: Storage, head: Head) -> None:
    """Write the head that the masks are made with, unless the output has it."""
    storage.create(HEAD, head.data)


def read_head(storage: Storage) -> Head:
    """The head that the masks of an output are made with."""
    try:
        return Head.from_bytes(storage.read(HEAD))
    except HeadError as error:
        raise ValueError(f"{HEAD} of {_shown_uri(storage)}: {error}; delete the file and give --head again.") from error


def read_names(storage: Storage) -> Vocabulary:
    """The output's vocabulary without text embeddings."""
    try:
        return Vocabulary.from_json(json_object(storage.read(VOCABULARY), VOCABULARY))
    except VocabularyError as error:
        raise ValueError(f"{VOCABULARY} of {_shown_uri(storage)}: {error}") from error


def read_vocabulary(storage: Storage) -> Vocabulary:
    """The output's vocabulary with its text embeddings."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    vocabulary = read_names(storage)
    try:
        return vocabulary.with_embeddings(load(storage.read(EMBEDDINGS))["embeddings"])
    except (SafetensorError, KeyError, TypeError, VocabularyError) as error:
        raise ValueError(
            f"{EMBEDDINGS} of {_shown_uri(storage)}: {error}; delete the file, and the next run makes it."
        ) from error


def _shown_uri(storage: Storage) -> str:
    return public_uri(storage.uri)


def _vocabulary_bytes(vocabulary_json: Mapping[str, Any]) -> bytes:
    return json.dumps(vocabulary_json, ensure_ascii=False, indent=1).encode()


def _differences(new: RunRecord, old: RunRecord, recipe_defaults: Mapping[str, Any]) -> list[str]:
    """A line for each setting that differs, but for the vocabulary."""
    now, then = ({"input": each.input, "source": each.source, **_settings(each.recipe)} for each in (new, old))
    defaults = _settings(recipe_defaults)
    then |= {name: defaults[name] for name in now.keys() - then.keys() if name in defaults}
    differing = [name for name in sorted(now.keys() | then.keys()) if now.get(name, ...) != then.get(name, ...)]
    return [f"{_shown(name)}: {_values(now, then, name)}" for name in differing if name != "vocabulary"]


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe under dotted names, as JSON has them."""
    return dict(_flat("", json.loads(json.dumps(recipe))))


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _shown(name: str) -> str:
    """The option that sets a setting, or else the setting's dotted name."""
    _, is_teachers, of_teacher = name.partition("segmenter.model.settings.")
    if is_teachers:
        return f"--method-settings {of_teacher}"
    setting = name.rpartition(".")[2]
    set_by_option = setting in _OPTIONS and not name.startswith("weights.")
    return f"--{setting.replace('_', '-')}" if set_by_option else name


def _values(now: Mapping[str, Any], then: Mapping[str, Any], name: str) -> str:
    shown = [repr(values[name]) if name in values else "nothing" for values in (now, then)]
    return f"this run has {shown[0]}, the output was made with {shown[1]}"


def _vocabulary_lines(storage: Storage, new: RunRecord, old: RunRecord, vocabulary: Vocabulary | None) -> list[str]:
    """How the vocabulary differs from the output's, in words; by the two hashes if the output's cannot be read."""
    from proxyclip.vocabulary.compare import vocabulary_differences

    if vocabulary is None:
        return ["vocabulary: this run has none, since it only makes features; the output has one"]
    try:
        recorded = read_names(storage)
        if recorded.fingerprint != old.recipe.get("vocabulary"):  # the user gave text embeddings
            recorded = read_vocabulary(storage)
        lines = vocabulary_differences(vocabulary, recorded)
    except (FileNotFoundError, ValueError):
        lines = []
    hashes = _values(new.recipe, old.recipe, "vocabulary")
    return [f"vocabulary: {line}" for line in lines or [hashes]]
