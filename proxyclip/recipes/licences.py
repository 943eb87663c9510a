"""The licences of weights: what CLIPs are published under, and what their names forbid."""

from __future__ import annotations

import re

# By the start of an open_clip model or of its pretrained tag; the others are MIT (OpenAI, LAION, DataComp) or the like.
_CLIP_LICENCES = {
    "metaclip": "CC-BY-NC-4.0",
    "dfn": "Apple-AMLR",
    "MobileCLIP": "Apple-AMLR",
    "PE-": "Apache-2.0",
    "webli": "Apache-2.0",
}


def clip_licence(model: str, pretrained: str) -> str:
    """The licence of open_clip's weights `pretrained` of `model`; "" where it is not known."""
    for start, licence in _CLIP_LICENCES.items():
        if model.startswith(start) or pretrained.startswith(start):
            return licence
    return "MIT" if pretrained.startswith(("openai", "laion", "datacomp", "commonpool")) else ""


def forbids_commercial_use(licence: str) -> bool:
    """Whether a licence, by its name, is one for research or other non-commercial use alone.

    A licence that says so only in its text, or has no name, is not recognised.
    """
    words = re.split(r"[^a-z]+", licence.lower().replace("non-commercial", "noncommercial"))
    return not {"nc", "noncommercial", "research", "amlr"}.isdisjoint(words)
