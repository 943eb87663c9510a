"""Licences: which one a CLIP's weights have, and which ones forbid commercial use."""

from __future__ import annotations

import re

# By how the name of an open_clip model or of its pretrained tag starts.
_CLIP_LICENCES = {
    "metaclip": "CC-BY-NC-4.0",
    "dfn": "Apple-AMLR",
    "MobileCLIP": "Apple-AMLR",
    "PE-": "Apache-2.0",
    "webli": "Apache-2.0",
}


def clip_licence(model: str, pretrained: str) -> str:
    """The licence of the weights that open_clip calls `pretrained` of `model`; "" if it is not known."""
    for start, licence in _CLIP_LICENCES.items():
        if model.startswith(start) or pretrained.startswith(start):
            return licence
    return "MIT" if pretrained.startswith(("openai", "laion", "datacomp", "commonpool")) else ""


def forbids_commercial_use(licence: str) -> bool:
    """Whether the name of a licence says that it allows only research or other non-commercial use.

    Only the name is read: a licence that forbids commercial use only in its text is not recognised.
    """
    words = re.split(r"[^a-z]+", licence.lower().replace("non-commercial", "noncommercial"))
    return not {"nc", "noncommercial", "research", "amlr"}.isdisjoint(words)
