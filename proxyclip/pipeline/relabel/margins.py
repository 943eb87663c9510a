"""The margin between the best two classes: no output stores it, but kept features decode to it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.config import DecodeConfig
from proxyclip.dataset.run_record import read_head, read_vocabulary, require_run
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.decoding.reduce import reduce_confidence
from proxyclip.pipeline.features import open_features
from proxyclip.storage.store import Storage, public_uri


def margins_of(output: str) -> Callable[[str], npt.NDArray[np.uint8] | None]:
    """What gives the margin of an image by its uri: means of blocks, stored as confidence is; None without features.

    It decodes on the CPU, with the vocabulary and the settings of the output's masks. Raises ValueError or
    FileNotFoundError if the output has no features, or if its masks were made with more than features.
    """
    storage = Storage(output)
    run = require_run(storage)
    features = open_features(run.source or storage.uri)
    recipe = run.recipe
    config = _decode_config(recipe["segmenter"]["decode"])
    if config.needs_image or "regions" in recipe:
        raise ValueError(
            f"{public_uri(storage.uri)} was labelled with the images or regions beside the features (--pamr-steps, "
            "--guided-radius, --regions), so its margin does not follow from the features; leave out --margin."
        )
    decoder = Decoder(config, head=read_head(storage) if "head" in recipe else None)
    vocabulary, stride = read_vocabulary(storage), int(recipe["confidence_stride"])

    def margin(uri: str) -> npt.NDArray[np.uint8] | None:
        if uri not in features:
            return None
        return reduce_confidence(decoder.labels(features[uri], vocabulary).margin, stride).numpy()

    return margin


def _decode_config(recorded: dict[str, Any]) -> DecodeConfig:
    """The settings in a recipe, whose tuples are lists in JSON."""
    fields: dict[str, Any] = {name: tuple(of) if isinstance(of, list) else of for name, of in recorded.items()}
    return DecodeConfig(**fields)
