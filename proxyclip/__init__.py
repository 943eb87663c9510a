"""Open-vocabulary labelling of whole image corpora: dense masks, confidence, resume, Parquet.

Public names are imported when they are first used, so `import proxyclip` loads neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxyclip.config import DecodeConfig, ModelConfig, SegmenterConfig, WindowConfig
    from proxyclip.evaluation.calibration.calibrate import calibrate
    from proxyclip.evaluation.calibration.options import CalibrateOptions
    from proxyclip.models.decoding.decode import Decoded
    from proxyclip.models.decoding.decoder import Decoder
    from proxyclip.models.features import DenseFeatures, Segmentation, StoredFeatures
    from proxyclip.models.segmenter import Segmenter
    from proxyclip.models.teachers.running import RunningLabels
    from proxyclip.models.teachers.teacher import Teacher
    from proxyclip.pipeline.adapt.options import AdaptOptions
    from proxyclip.pipeline.adapt.run import adapt
    from proxyclip.pipeline.evaluate.options import EvaluateOptions
    from proxyclip.pipeline.evaluate.run import evaluate
    from proxyclip.pipeline.features import load_features, open_features, save_features
    from proxyclip.pipeline.heads import load_head
    from proxyclip.pipeline.options import LabelOptions
    from proxyclip.pipeline.relabel.options import RelabelOptions
    from proxyclip.pipeline.relabel.run import relabel
    from proxyclip.pipeline.reprocess.options import ReprocessOptions
    from proxyclip.pipeline.reprocess.run import reprocess
    from proxyclip.pipeline.run import Summary, label
    from proxyclip.recipes.presets import PRESETS
    from proxyclip.recipes.teachers import TeacherMethod
    from proxyclip.training.mask_dataset import MaskDataset, ShardSampler
    from proxyclip.training.mask_stream import MaskStream
    from proxyclip.vocabulary.heads import Head
    from proxyclip.vocabulary.names import Vocabulary, VocabularyError
    from proxyclip.vocabulary.thresholds import Thresholds

_HOMES = {
    "AdaptOptions": "pipeline.adapt.options",
    "adapt": "pipeline.adapt.run",
    "load_head": "pipeline.heads",
    "CalibrateOptions": "evaluation.calibration.options",
    "calibrate": "evaluation.calibration.calibrate",
    "Thresholds": "vocabulary.thresholds",
    "DecodeConfig": "config",
    "LabelOptions": "pipeline.options",
    "ModelConfig": "config",
    "SegmenterConfig": "config",
    "WindowConfig": "config",
    "Decoded": "models.decoding.decode",
    "Decoder": "models.decoding.decoder",
    "DenseFeatures": "models.features",
    "Head": "vocabulary.heads",
    "Segmentation": "models.features",
    "StoredFeatures": "models.features",
    "Segmenter": "models.segmenter",
    "RunningLabels": "models.teachers.running",
    "Teacher": "models.teachers.teacher",
    "EvaluateOptions": "pipeline.evaluate.options",
    "evaluate": "pipeline.evaluate.run",
    "RelabelOptions": "pipeline.relabel.options",
    "relabel": "pipeline.relabel.run",
    "ReprocessOptions": "pipeline.reprocess.options",
    "reprocess": "pipeline.reprocess.run",
    "Summary": "pipeline.run",
    "label": "pipeline.run",
    "load_features": "pipeline.features",
    "open_features": "pipeline.features",
    "save_features": "pipeline.features",
    "PRESETS": "recipes.presets",
    "TeacherMethod": "recipes.teachers",
    "MaskDataset": "training.mask_dataset",
    "MaskStream": "training.mask_stream",
    "ShardSampler": "training.mask_dataset",
    "Vocabulary": "vocabulary.names",
    "VocabularyError": "vocabulary.names",
}

__all__ = [
    "PRESETS",
    "AdaptOptions",
    "CalibrateOptions",
    "DecodeConfig",
    "Decoded",
    "Decoder",
    "DenseFeatures",
    "EvaluateOptions",
    "Head",
    "LabelOptions",
    "MaskDataset",
    "MaskStream",
    "ModelConfig",
    "RelabelOptions",
    "ReprocessOptions",
    "RunningLabels",
    "Segmentation",
    "Segmenter",
    "SegmenterConfig",
    "ShardSampler",
    "StoredFeatures",
    "Summary",
    "Teacher",
    "TeacherMethod",
    "Thresholds",
    "Vocabulary",
    "VocabularyError",
    "WindowConfig",
    "adapt",
    "calibrate",
    "evaluate",
    "label",
    "load_features",
    "load_head",
    "open_features",
    "relabel",
    "reprocess",
    "save_features",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'proxyclip' has no attribute {name!r}")
    return getattr(import_module(f"proxyclip.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
