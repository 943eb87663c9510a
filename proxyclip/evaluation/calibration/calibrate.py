"""Calibrate: from a labelled sample to thresholds.json, calibration.json and reliability.png."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from proxyclip.dataset.reading.labels import Labels
from proxyclip.evaluation.calibration.choosing import (
    FOLDS,
    Chosen,
    Rule,
    choose,
    class_evidence,
    cross_fit,
    most_confident,
)
from proxyclip.evaluation.calibration.evidence import Evidence
from proxyclip.evaluation.calibration.options import NO_LABELS, CalibrateOptions
from proxyclip.evaluation.calibration.precision import INTERVAL
from proxyclip.evaluation.calibration.reliability import reliability
from proxyclip.evaluation.calibration.sample import Sample, unlabelled_evidence
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.evaluation.labels.matching import matching_of
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.thresholds import ClassEvidence, Thresholds

THRESHOLDS, REPORT, PICTURE = "thresholds.json", "calibration.json", "reliability.png"

# What both files say first.
_ABOUT = ("output", "fingerprint", "vocabulary", "vocabulary_fingerprint", "asked", "what_this_is")

_NOT_PRECISION = (
    "These thresholds keep the most confident share of each class. They were chosen without labels, so they say "
    "nothing about how many of the kept pixels are right: a class that is always wrong keeps the same share as one "
    "that is always right."
)


@dataclass(frozen=True)
class Calibrated:
    """What was found. report: as calibration.json has it. notes: what a user should know first."""

    vocabulary: Vocabulary
    thresholds: Thresholds
    evidence: Sequence[ClassEvidence]
    report: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def calibrate(options: CalibrateOptions) -> Calibrated:
    """Calibrate an output and write what was found.

    Raises ValueError, FileNotFoundError or another OSError, and writes nothing, if the labels do not fit the output, or
    are too few.
    """
    labels = Labels.open(options.output)
    destination = Storage(options.destination)
    found = _without_labels(labels, options) if options.labels == NO_LABELS else _with_labels(labels, options)
    found.notes.extend(_notes(labels))
    about = {name: found.report[name] for name in _ABOUT}
    destination.write(THRESHOLDS, found.thresholds.to_json(found.vocabulary, found.evidence, about))
    destination.write(REPORT, (json.dumps(found.report, indent=1, ensure_ascii=False) + "\n").encode())
    if "reliability" in found.report:
        from proxyclip.evaluation.calibration.picture import reliability_picture

        picture = io.BytesIO()
        reliability_picture(found.report["reliability"], found.thresholds, found.vocabulary).save(picture, "PNG")
        destination.write(PICTURE, picture.getvalue())
    return found


def _with_labels(labels: Labels, options: CalibrateOptions) -> Calibrated:
    rule = Rule(options.precision, options.certainty, options.min_images, options.min_pixels)
    vocabulary = labels.vocabulary
    matching = matching_of(
        vocabulary,
        map_file=options.map,
        names=options.label_names,
        ignore=options.ignore,
        reduce_zero_label=options.reduce_zero_label,
    )
    sample = Sample(labels, LabelFiles(options.labels, options.label_suffix, options.image_suffix))
    evidence = sample.evidence(matching.coding)
    _refuse_too_little(evidence, rule, sample.waiting)
    chosen, fitted = choose(evidence, rule), cross_fit(evidence, rule)
    of_classes = class_evidence(evidence, chosen, fitted)
    right, pixels = (int(each.sum()) for each in evidence.totals())
    report = {
        **_head(labels, {"labels": public_uri(options.labels), **asdict(rule)}),
        "what_this_is": f"The lowest confidence above which the share of right pixels is at least {rule.precision:g}: "
        f"its lower bound, which holds with probability {rule.certainty:g} over images like those of the sample, "
        "reaches that share.",
        "label_values": matching.rule,
        "images": evidence.num_images,
        "pixels": pixels,
        "accuracy": right / pixels,
        "cross_fitted": {
            "folds": min(FOLDS, evidence.num_images),
            "precision": fitted.precision,
            "interval": fitted.interval(),
            "interval_holds_with": INTERVAL,
            "kept": fitted.share,
        },
        "classes": _classes(vocabulary, chosen, of_classes),
        "reliability": reliability(evidence, vocabulary.class_names),
        "sample": list(evidence.uris),
    }
    notes = []
    if matching.unmatched_labels:
        others = ", ".join(f"{value} {name!r}" for value, name in matching.unmatched_labels.items())
        notes.append(f"Label values without a class of the output do not count: {others}.")
    if fitted.precision is not None and fitted.precision < rule.precision:
        notes.append(
            f"On images that they were not chosen on, the thresholds reach {100 * fitted.precision:.1f} %, less than "
            f"{100 * rule.precision:g} %: the sample is small. Label more images, or raise --certainty."
        )
    if sample.waiting:
        notes.append(f"{sample.waiting} labelled images have no mask (yet), and were left out.")
    return Calibrated(vocabulary, chosen.thresholds(), of_classes, report, notes)


def _without_labels(labels: Labels, options: CalibrateOptions) -> Calibrated:
    evidence = unlabelled_evidence(labels, options.sample)
    chosen = most_confident(evidence, options.share)
    pixels = evidence.pixels.sum(axis=1)
    of_classes = []
    for index, lowest in enumerate(chosen.bins):
        rows = evidence.predicted == index
        kept = evidence.pixels[rows, lowest:].sum(axis=1)
        share = float(kept.sum() / pixels[rows].sum()) if rows.any() else 0.0
        of_classes.append(ClassEvidence("share", int((kept > 0).sum()), int(kept.sum()), share))
    report = {
        **_head(labels, {"labels": NO_LABELS, "share": options.share}),
        "what_this_is": _NOT_PRECISION,
        "images": evidence.num_images,
        "pixels": int(pixels.sum()),
        "classes": _classes(labels.vocabulary, chosen, of_classes),
    }
    return Calibrated(labels.vocabulary, chosen.thresholds(), of_classes, report, [_NOT_PRECISION])


def _head(labels: Labels, asked: dict[str, Any]) -> dict[str, Any]:
    """What was calibrated. fingerprint: of the recipe whose confidences the thresholds hold for."""
    return {
        "output": public_uri(labels.storage.uri),
        "fingerprint": labels.record.fingerprint,
        "vocabulary": labels.vocabulary.name,
        "vocabulary_fingerprint": labels.record.recipe.get("vocabulary"),
        "asked": asked,
    }


def _classes(vocabulary: Vocabulary, chosen: Chosen, evidence: Sequence[ClassEvidence]) -> dict[str, Any]:
    values = chosen.thresholds().values
    return {
        name: {"threshold": value, **asdict(each)}
        for name, value, each in zip(vocabulary.class_names, values, evidence, strict=True)
    }


def _refuse_too_little(evidence: Evidence, rule: Rule, waiting: int) -> None:
    pixels = int(evidence.pixels.sum())
    if evidence.num_images >= rule.min_images and pixels >= rule.min_pixels:
        return
    also = f" ({waiting} more have no mask yet)" if waiting else ""
    counted = "all of their pixels are ignored" if evidence.num_images and not pixels else f"{pixels} of their pixels"
    counted += "" if not pixels else " have a class and a label"
    raise ValueError(
        f"There are {evidence.num_images} labelled images{also}, and {counted}; thresholds must rest on at least "
        f"{rule.min_images} images and {rule.min_pixels} pixels. Label more images, or give --labels none, which "
        "promises no precision."
    )


def _notes(labels: Labels) -> list[str]:
    notes = []
    if not labels.finished:
        totals = labels.totals
        notes.append(
            f"The output is not finished: {totals.committed} of {totals.shards} shards. Only these were looked at."
        )
    decode = labels.record.recipe.get("segmenter", {}).get("decode", {})
    if decode.get("ignore_below") or decode.get("thresholds"):
        notes.append(
            "The output was made with --ignore-below or --thresholds: what these dropped is not there, so the new "
            "thresholds hold only above them."
        )
    return notes
