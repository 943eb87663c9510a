"""Open-vocabulary labelling of whole image corpora: dense masks, confidence, resume, Parquet.

Public names are imported when they are first used, so `import proxyclip` loads neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxyclip.config import DecodeConfig, ModelConfig, SegmenterConfig, WindowConfig
    from proxyclip.models.features import DenseFeatures, Segmentation
    from proxyclip.models.segmenter import Segmenter
    from proxyclip.pipeline.options import LabelOptions
    from proxyclip.pipeline.run import Summary, label
    from proxyclip.recipes.presets import PRESETS
    from proxyclip.vocabulary.names import Vocabulary, VocabularyError

_HOMES = {
    "DecodeConfig": "config",
    "LabelOptions": "pipeline.options",
    "ModelConfig": "config",
    "SegmenterConfig": "config",
    "WindowConfig": "config",
    "DenseFeatures": "models.features",
    "Segmentation": "models.features",
    "Segmenter": "models.segmenter",
    "Summary": "pipeline.run",
    "label": "pipeline.run",
    "PRESETS": "recipes.presets",
    "Vocabulary": "vocabulary.names",
    "VocabularyError": "vocabulary.names",
}

__all__ = [
    "PRESETS",
    "DecodeConfig",
    "DenseFeatures",
    "LabelOptions",
    "ModelConfig",
    "Segmentation",
    "Segmenter",
    "SegmenterConfig",
    "Summary",
    "Vocabulary",
    "VocabularyError",
    "WindowConfig",
    "label",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'proxyclip' has no attribute {name!r}")
    return getattr(import_module(f"proxyclip.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
