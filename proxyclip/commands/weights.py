"""The verb that fetches weights for machines without internet."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from tyro.conf import Positional, arg


def fetch_weights(
    preset: Annotated[Positional[str], arg(metavar="PRESET")],
    dest: Annotated[Positional[str], arg(metavar="DEST")],
    clip: str | None = None,
    clip_pretrained: str | None = None,
    clip_weights: str | None = None,
    proxy: str | None = None,
    proxy_weights: str | None = None,
) -> int:
    """Copy all that a preset needs into a folder or prefix, for clusters without internet.

    DEST gets the networks, the tokenizer if it is a download, and weights.json with the hash and the licence of each
    file. `--weights DEST` then takes the place of downloads by name. DEST may hold the weights of several presets.

    Args:
        preset: Named recipe (see `proxyclip presets`).
        dest: Folder or prefix to fill: a path or a URI.
        clip: As for `proxyclip label`: another CLIP than the preset's.
        clip_pretrained: Tag of open_clip's weights for --clip.
        clip_weights: File with the weights of CLIP, a path or URI; else they are downloaded by name.
        proxy: Another proxy than the preset's.
        proxy_weights: File with the weights of the proxy, a path or URI; else they are downloaded by name.
    """
    from proxyclip.recipes.bundle.fetch import fetch_bundle
    from proxyclip.recipes.licences import forbids_commercial_use
    from proxyclip.recipes.presets import preset as preset_named
    from proxyclip.storage.store import Storage, public_uri

    model = preset_named(preset).config.model
    given: dict[str, Any] = {
        "clip": clip,
        "clip_pretrained": clip_pretrained,
        "clip_weights": clip_weights,
        "proxy": proxy,
        "proxy_weights": proxy_weights,
    }
    model = replace(model, **{name: value for name, value in given.items() if value is not None})
    uri = Storage(dest).uri
    for file in fetch_bundle(model, uri):
        licence = file.licence or "licence not known"
        note = " (not for commercial use)" if forbids_commercial_use(file.licence) else ""
        print(f"{file.file}  {file.size_bytes / 1e6:,.1f} MB  sha256 {file.sha256[:12]}  {licence}{note}")
    print(f"Label with them: proxyclip label --preset {preset} --weights {public_uri(uri)} ...")
    return 0
