"""The verb that says how far confidence can be trusted: calibrate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from proxyclip.evaluation.calibration.options import CalibrateOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxyclip.evaluation.calibration.calibrate import Calibrated

SHOWN_CLASSES = 40
_BASES = {"class": "", "pooled": "too little evidence: threshold of all classes", "none": "never sure enough"}


def calibrate(options: Annotated[CalibrateOptions, arg(name="")]) -> int:
    """Find thresholds of confidence, from a small labelled sample of an output's images.

    Writes thresholds.json, which label, relabel and export take as --thresholds, and a report: calibration.json and
    reliability.png. Exit codes: 0, done. 2, the command is wrong, or the labels are too few or do not fit.
    """
    from proxyclip.evaluation.calibration.calibrate import REPORT, THRESHOLDS
    from proxyclip.evaluation.calibration.calibrate import calibrate as find
    from proxyclip.pipeline.opening import output_uri
    from proxyclip.storage.store import public_uri

    options = replace(options, to=output_uri(options.destination))
    found = find(options)
    for line in _table(found):
        print(line)
    for line in _summary(found):
        print(line)
    for note in found.notes:
        print(f"Note: {note}")
    place = public_uri(options.destination)
    print(f"Written: {place}/{THRESHOLDS}, and the report {place}/{REPORT}")
    return 0


def _table(found: Calibrated) -> Iterator[str]:
    rows = list(found.report["classes"].items())
    width = max(len(name) for name, _ in rows)
    yield f"{'class':{width}}  keeps from  share kept  precision, cross-fitted  images"
    for name, row in rows[:SHOWN_CLASSES]:
        keeps = "nothing" if row["basis"] == "none" else f"{row['threshold']:.3f}"
        right = ""
        if row["precision"] is not None:
            low, high = row["interval"]
            right = f"{100 * row['precision']:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"
        because = _BASES.get(row["basis"], "")
        line = f"{name:{width}}  {keeps:>10}  {100 * row['kept']:8.0f} %  {right:>23}  {row['images']:6}  {because}"
        yield line.rstrip()
    if len(rows) > SHOWN_CLASSES:
        yield f"... and {len(rows) - SHOWN_CLASSES} more classes, in the report"


def _summary(found: Calibrated) -> Iterator[str]:
    report = found.report
    if "cross_fitted" not in report:
        yield f"Chosen on {report['images']} images without labels."
        return
    yield f"All pixels of the {report['images']} labelled images: {100 * report['accuracy']:.1f} % are right."
    fitted = report["cross_fitted"]
    if fitted["precision"] is None:
        yield "The thresholds keep no pixel of images that they were not chosen on."
    else:
        low, high = fitted["interval"]
        yield (
            f"Kept pixels of images that the thresholds were not chosen on: {100 * fitted['precision']:.1f} % are "
            f"right ({100 * low:.0f} to {100 * high:.0f} %); {100 * fitted['kept']:.0f} % are kept."
        )
    error, scaled = report["reliability"]["calibration_error"], report["reliability"]["temperature_and_offset"]
    if "temperature" in scaled:
        yield (
            f"Expected calibration error: {error:.3f}; {scaled['calibration_error_after']:.3f} after temperature "
            f"{scaled['temperature']:.2f} and offset {scaled['offset']:+.2f} of the log-odds."
        )
