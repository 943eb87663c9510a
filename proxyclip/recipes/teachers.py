"""Teachers: methods with a network of their own, built in or from a plug-in package. As data, without torch.

A plug-in package registers a `TeacherMethod` as an entry point of GROUP; docs/your_own_model.md shows one.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from proxyclip.config import TeacherModel
from proxyclip.recipes.licences import forbids_commercial_use
from proxyclip.recipes.methods import METHODS
from proxyclip.recipes.names import look_up
from proxyclip.recipes.weights import WeightsDiffer, file_hash, student_file
from proxyclip.storage import cache
from proxyclip.vocabulary.names import Vocabulary

logger = logging.getLogger(__name__)

GROUP = "proxyclip.methods"


@dataclass(frozen=True)
class TeacherMethod:
    """What is known of a teacher without loading it.

    load: "package.module:function", imported where the network runs. It is called as `function(settings, files,
    device=, dtype=)` and returns a `models.teachers.teacher.Teacher`.
    licence: of the weights.
    find_weights: takes the user's --method-weights, or None, and gives the files by a name of their own; it raises
    FileNotFoundError or ValueError if they are not there. Every process that loads them checks their hashes. Without
    it, the method has no weights.
    settings: every setting that changes a mask, with its default, as JSON values. They are part of the recipe.
    check: raises ValueError for settings that make no sense.
    check_weights: "package.module:function", called as `function(settings, files, vocabulary)` before a run starts. It
    raises ValueError if the weights do not fit. Like the package's module, it should not load torch.
    requires: packages that it needs, as pip takes them. run.json records their versions.
    install: how to install them, for the error if one is missing.
    """

    load: str
    licence: str
    find_weights: Callable[[str | None], Mapping[str, Path]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], None] | None = None
    check_weights: str | None = None
    requires: tuple[str, ...] = ()
    install: str = ""


def _transformers_folder(weights: str | None) -> dict[str, Path]:
    """The files of a folder that `save_pretrained` writes: weights, configurations, tokenizer."""
    if weights is None:
        raise FileNotFoundError(
            "--method sam3 needs --method-weights FOLDER. Accept the licence at huggingface.co/facebook/sam3, then "
            "download the folder: hf download facebook/sam3 --local-dir FOLDER"
        )
    folder = Path(weights)
    files = {path.name: path for suffix in ("json", "safetensors", "txt") for path in folder.glob(f"*.{suffix}")}
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise FileNotFoundError(
            f"--method-weights {weights} must be a folder with config.json and *.safetensors, as transformers reads "
            "it. The file sam3.pt has another layout and cannot be used."
        )
    return dict(sorted(files.items()))


def _cliprc_files(weights: str | None) -> dict[str, Path]:
    """A file that says everything, or a folder with a checkpoint of the release and what it does not say."""
    if weights is None:
        raise FileNotFoundError(
            "--method cliprc needs --method-weights: a folder with a checkpoint of the release, cliprc.json "
            "and text.safetensors, or a file or URI of a file that holds all three (docs/cliprc.md)."
        )
    if "://" in weights:
        return {"checkpoint": cache.fetch(weights)}
    path = Path(weights)
    if path.is_file():
        return {"checkpoint": path}
    files = {"description": path / "cliprc.json", "text": path / "text.safetensors"}
    if missing := [each.name for each in files.values() if not each.is_file()]:
        raise FileNotFoundError(f"--method-weights {weights} is neither a file nor a folder with {missing[0]}.")
    found = [each for suffix in ("pth", "pt", "safetensors") for each in sorted(path.glob(f"*.{suffix}"))]
    checkpoints = [each for each in found if each.name != "text.safetensors"]
    if len(checkpoints) != 1:
        raise FileNotFoundError(
            f"--method-weights {weights} has {len(checkpoints)} checkpoints (*.pth, *.pt, *.safetensors); it needs one."
        )
    return {**files, "checkpoint": checkpoints[0]}


def _check_cliprc(settings: Mapping[str, Any]) -> None:
    for name in ("short_side", "crop", "stride"):
        if settings[name] < 0:
            raise ValueError(f"--method-settings: {name} is {settings[name]}; it must be 0 (as trained) or more.")
    if 0 < settings["crop"] < settings["stride"]:
        raise ValueError("--method-settings: a stride above the crop leaves pixels without a label.")
    if not 0 <= settings["seen_offset"] <= 1:
        raise ValueError(f"--method-settings: seen_offset is {settings['seen_offset']}; it must be from 0 to 1.")


TEACHERS: dict[str, TeacherMethod] = {
    "cliprc": TeacherMethod(
        load="proxyclip.models.cliprc.teacher:load",
        licence="of the checkpoint; the public release names none",
        find_weights=_cliprc_files,
        settings={"short_side": 0, "crop": 0, "stride": 0, "seen_offset": 0.1},
        check=_check_cliprc,
        check_weights="proxyclip.models.cliprc.description:check",
    ),
    "student": TeacherMethod(
        load="proxyclip.models.student.teacher:load",
        licence="as its card.json says",
        find_weights=student_file,
        settings={"short_side": 0},
        check_weights="proxyclip.models.student.card:check",
        requires=("segmentation-models-pytorch>=0.5",),
        install='pip install "proxyclip[students]"',
    ),
    "sam3": TeacherMethod(
        load="proxyclip.models.teachers.sam3:load",
        licence="SAM-License (Meta, 2025-11-19; not for military use)",
        find_weights=_transformers_folder,
        settings={"presence": True},
        requires=("transformers>=5.14.1",),  # some earlier ones lose the text encoder (huggingface/transformers#46402)
        install='pip install "proxyclip[sam3]"',
    ),
}


def teacher_named(name: str) -> TeacherMethod:
    """The teacher of this name. Raises ValueError for an unknown name, and for a plug-in that cannot be imported."""
    if name in TEACHERS:
        return TEACHERS[name]
    plugins = plugin_methods()
    if name not in plugins:
        look_up(dict.fromkeys((*METHODS, *TEACHERS, *plugins)), name, "method")
        raise ValueError(f"Method {name!r} has no network of its own.")
    return _loaded(plugins[name])


def is_teacher(name: str) -> bool:
    """Whether a method is a teacher, as far as its name tells: the others are those of `recipes.methods`."""
    return name not in METHODS


def plugin_methods() -> dict[str, EntryPoint]:
    """The methods that installed packages register, by name. No package is imported.

    Names that are built in stay as they are. Raises ValueError if two packages register the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in METHODS or entry.name in TEACHERS:
            continue
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:  # the same package may be on the path twice
            raise ValueError(
                f"Two packages register method {entry.name!r}: {package_of(other)} and {package_of(entry)}; "
                "uninstall one of them."
            )
    return dict(sorted(found.items()))


def package_of(entry: EntryPoint) -> str:
    """The package that registers a method, with its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _loaded(entry: EntryPoint) -> TeacherMethod:
    try:
        found = entry.load()
    except Exception as error:  # whatever its module raises
        raise ValueError(
            f"Method {entry.name!r} cannot be imported from {package_of(entry)}: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(found, TeacherMethod):
        raise ValueError(
            f"Method {entry.name!r} of {package_of(entry)}: {entry.value} is a {type(found).__name__}, not a "
            "TeacherMethod."
        )
    return found


def teacher_settings(name: str, given: str | None) -> dict[str, Any]:
    """The settings of a teacher, with those that the user gives as JSON or as a JSON file.

    Raises ValueError for a setting that the method does not have, or that has another type than its default.
    """
    method = teacher_named(name)
    settings = json.loads(json.dumps(dict(method.settings), allow_nan=False))
    for key, value in _json_object(given).items() if given else ():
        default = look_up(settings, key, "setting")
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise ValueError(
                f"--method-settings: {key} is {value!r}; it must be like its default, {default!r}, for --method {name}."
            )
        settings[key] = value
    if method.check is not None:
        method.check(settings)
    return settings


def _json_object(given: str) -> dict[str, Any]:
    text = given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise ValueError(f"--method-settings {given}: not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f'--method-settings {given}: give a JSON object such as {{"name": 1}}.')
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def package_versions_of(name: str) -> dict[str, str]:
    """The versions of the packages that a teacher needs, and of its own. Raises ValueError if one is not installed."""
    method, versions = teacher_named(name), {}
    for text in method.requires:
        requirement = Requirement(text)
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = ""
        if not found or not requirement.specifier.contains(found, prereleases=True):
            has = f"{requirement.name} {found} is installed" if found else "it is not installed"
            how = method.install or f'pip install "{text}"'
            raise ValueError(f"--method {name} needs {text}, and {has}: {how}")
        versions[requirement.name] = found
    if name not in TEACHERS and (package := plugin_methods()[name].dist) is not None:
        versions[package.name] = package.version
    return versions


def teacher_files(model: TeacherModel) -> dict[str, Path]:
    """The files of a teacher's weights, by name."""
    find = teacher_named(model.method).find_weights
    if find is not None:
        return dict(find(model.weights))
    if model.weights is not None:
        raise ValueError(f"--method {model.method} has no weights; leave out --method-weights.")
    return {}


def teacher_hashes(model: TeacherModel) -> dict[str, str]:
    """The sha256 of every file of a teacher's weights."""
    return {name: file_hash(path) for name, path in teacher_files(model).items()}


def check_teacher_weights(model: TeacherModel, vocabulary: Vocabulary | None) -> None:
    """Raise ValueError if a teacher's weights do not fit its settings or the vocabulary."""
    where = teacher_named(model.method).check_weights
    if where is not None and vocabulary is not None:
        module, _, function = where.partition(":")
        getattr(import_module(module), function)(dict(model.settings), teacher_files(model), vocabulary)


def check_teacher_hashes(model: TeacherModel, expected: Mapping[str, str]) -> None:
    """Raise WeightsDiffer unless this machine's files are those of the run.

    A plug-in or a file that this machine lacks is a ValueError or a FileNotFoundError with the machine's name.
    """
    machine = socket.gethostname()
    try:
        found = teacher_hashes(model)
    except (ValueError, OSError) as error:
        kind = FileNotFoundError if isinstance(error, OSError) else ValueError
        raise kind(f"On machine {machine}: {error}") from error
    for name in sorted(found.keys() | expected.keys()):
        here, there = (hashes.get(name, "nothing") for hashes in (found, expected))
        if here != there:
            raise WeightsDiffer(
                f"The weights of method {model.method} on machine {machine} are not those of the run: {name} has "
                f"sha256 {here}, but the run started with {there}. Copy the files that the run started with to this "
                "machine, or start a new run with a new output."
            )


def warn_of_licence(name: str) -> None:
    """Say if the name of the licence of a teacher's weights excludes commercial use."""
    licence = teacher_named(name).licence
    if forbids_commercial_use(licence):
        logger.warning("The weights of method %s are licensed %s: not for commercial use.", name, licence)
