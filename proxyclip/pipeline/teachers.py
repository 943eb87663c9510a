"""The configuration of a teacher: what of the options it uses, and what it cannot have."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from proxyclip.config import DecodeConfig, TeacherConfig, TeacherModel
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.recipe import check_background, class_thresholds
from proxyclip.recipes.teachers import teacher_named, teacher_settings
from proxyclip.vocabulary.names import Vocabulary

# Options of the methods on CLIP, and why they have no effect with a teacher.
_NOT_USED = {
    **dict.fromkeys(("preset", "benchmark", "quality"), "recipes are for methods on CLIP"),
    **dict.fromkeys(("clip", "clip_pretrained", "clip_weights", "embeddings", "head"), "it uses no CLIP"),
    **dict.fromkeys(("proxy", "proxy_weights", "weights", "gaussian_std"), "it uses no CLIP and no proxy"),
    **dict.fromkeys(("short_side", "crop", "stride", "fast_decode"), "it gets each image whole, at its own size"),
    **dict.fromkeys(("logit_scale", "area_threshold", "pamr_steps"), "it makes probabilities by itself"),
    **dict.fromkeys(("guided_radius", "presence", "active", "regions"), "it makes probabilities by itself"),
    "collect_statistics": "it has no features to learn a head from",
    "batch_windows": "it labels one image at a time",
    "compile": "its networks run as they are",
}


STUDENT = "student"


def with_student(options: LabelOptions) -> LabelOptions:
    """The options with the method that `--preset student` stands for. Raises ValueError for one without the other."""
    if (options.preset == STUDENT) != (options.student is not None):
        raise ValueError("--preset student and --student CHECKPOINT go together; give both, or neither.")
    if options.student is None:
        return options
    if options.method is not None or options.method_weights is not None:
        raise ValueError("--preset student brings its own method and weights; leave out --method, --method-weights.")
    preset = LabelOptions.preset
    return dataclasses.replace(options, preset=preset, student=None, method=STUDENT, method_weights=options.student)


def teacher_config(options: LabelOptions, method: str, vocabulary: Vocabulary | None) -> TeacherConfig:
    """The configuration of a run with a teacher. Raises ValueError for unknown names and for options without effect."""
    teacher_named(method)
    if options.features_codec is not None:
        raise ValueError(
            f"--method {method} keeps no features, since no text embedding fits them: --keep-features, --add-features, "
            "`proxyclip relabel` and `proxyclip reprocess` do not work with it. Label again for another vocabulary."
        )
    if options.dtype == "int8":
        raise ValueError(f"--dtype int8 is for the proxy, and --method {method} has none; choose another.")
    defaults = {each.name: each.default for each in dataclasses.fields(LabelOptions)}
    for name, reason in _NOT_USED.items():
        if getattr(options, name) != defaults[name]:
            raise ValueError(
                f"--{name.replace('_', '-')} has no effect with --method {method}: {reason}. Leave it out."
            )
    weights = options.method_weights
    decode = DecodeConfig(
        background_threshold=options.background_threshold or 0.0,
        ignore_below=options.ignore_below,
        thresholds=class_thresholds(options, vocabulary),
    )
    check_background(decode, vocabulary)
    return TeacherConfig(
        TeacherModel(
            method,
            settings=teacher_settings(method, options.method_settings),
            weights=None if weights is None else str(Path(weights).absolute()),
        ),
        decode,
    )
