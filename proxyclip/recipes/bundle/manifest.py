"""The manifest of a bundle: every file that `proxyclip fetch-weights` put there, with its hash and licence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proxyclip.config import ModelConfig
from proxyclip.storage.store import Storage, public_uri

MANIFEST = "weights.json"
VERSION = 1


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle. file: its path in the bundle.

    part: "clip", "proxy" or "tokenizer" (then there are several). model, pretrained: the names that open_clip or
    `--proxy` give them. source: the repository or file it was fetched from. licence: "" if it is not known.
    """

    part: str
    model: str
    pretrained: str
    file: str
    sha256: str
    size_bytes: int
    licence: str
    source: str


def read_manifest(uri: str) -> tuple[BundleFile, ...]:
    """The files of a bundle. Raises FileNotFoundError if there is no bundle, ValueError if its manifest is broken."""
    where = f"{public_uri(uri)}/{MANIFEST}"
    try:
        data = Storage(uri).read(MANIFEST)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"--weights {public_uri(uri)} holds no {MANIFEST}; fill it with `proxyclip fetch-weights PRESET DEST`."
        ) from error
    try:
        content = json.loads(data)
        if content["version"] != VERSION:
            raise ValueError(f"its version is {content['version']}, not {VERSION}")
        return tuple(BundleFile(**entry) for entry in content["files"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{where} is no manifest of this version of proxyclip ({error}); fetch again.") from error


def write_manifest(storage: Storage, files: Iterable[BundleFile]) -> None:
    """Replace the manifest of a bundle."""
    entries = [dataclasses.asdict(file) for file in sorted(files, key=lambda file: file.file)]
    storage.write(MANIFEST, json.dumps({"version": VERSION, "files": entries}, indent=1).encode())


def bundle_names(config: ModelConfig, part: str) -> tuple[str, str]:
    """The names of a configuration's part in a manifest: model and pretrained."""
    if part == "clip":
        return config.clip, config.clip_pretrained
    return (config.clip if part == "tokenizer" else str(config.proxy)), ""


def files_of(files: Sequence[BundleFile], config: ModelConfig, part: str) -> list[BundleFile]:
    """The files of a bundle that belong to a part of a configuration."""
    names = bundle_names(config, part)
    return [file for file in files if file.part == part and (file.model, file.pretrained) == names]


def weights_in(uri: str, config: ModelConfig, part: str) -> BundleFile:
    """The weights of a part of a configuration. Raises FileNotFoundError that names what the bundle holds instead."""
    files = read_manifest(uri)
    if found := files_of(files, config, part):
        return found[0]
    model, pretrained = bundle_names(config, part)
    held = ", ".join(sorted(_title(file.model, file.pretrained) for file in files if file.part == part)) or "none"
    raise FileNotFoundError(
        f"--weights {public_uri(uri)} holds no weights of {'CLIP' if part == 'clip' else part} "
        f"{_title(model, pretrained)}; it has: {held}. Add them with `proxyclip fetch-weights`, or give "
        f"--{part}-weights FILE."
    )


def _title(model: str, pretrained: str) -> str:
    return f"{model} ({pretrained})" if pretrained else model
