"""Do thresholds keep what they promise? Chosen on half of the labelled images, judged on the other half."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from performance.tables import Row
from proxyclip.dataset.reading.labels import Labels
from proxyclip.evaluation.calibration.choosing import Rule, choose, judge
from proxyclip.evaluation.calibration.evidence import Evidence
from proxyclip.evaluation.calibration.reliability import CONFIDENCE, Scaling, calibration_error, diagram, fit_scaling
from proxyclip.evaluation.calibration.sample import Sample
from proxyclip.evaluation.labels.coding import Coding
from proxyclip.evaluation.labels.files import LabelFiles


def read_evidence(output: str, labels: str) -> Evidence:
    """The counts of the images of an output that have a label, whose values are the output's classes."""
    opened = Labels.open(output)
    coding = Coding.indices(opened.vocabulary.num_classes, [opened.ignore])
    return Sample(opened, LabelFiles(labels)).evidence(coding)


def measure_halves(evidence: Evidence, rule: Rule) -> list[Row]:
    """Rows for images of even and odd number in sorted order: thresholds of one half, judged on the other."""
    even = np.arange(evidence.num_images) % 2 == 0
    return [
        _row(f"{chosen_on} -> {judged_on}", _measured(evidence, half, rule))
        for chosen_on, judged_on, half in (("even", "odd", even), ("odd", "even", ~even))
    ]


def measure_random_halves(evidence: Evidence, rule: Rule, splits: int) -> list[Row]:
    """Rows for random halves: mean, spread and extremes, and how often the precision was missed."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(splits):
        half = rng.permutation(evidence.num_images) < evidence.num_images // 2
        found.append(_measured(evidence, half, rule))
    values = np.array(found)
    wanted = rule.precision
    rows = [
        _row("random, mean", values.mean(axis=0)),
        _row("random, standard deviation", values.std(axis=0)),
        _row("random, lowest", values.min(axis=0)),
        _row("random, highest", values.max(axis=0)),
    ]
    for below in (wanted, wanted - 0.02, wanted - 0.05):
        share = float((values[:, 1] < below).mean())
        rows.append(dict.fromkeys(rows[0], "") | {"split": f"random, below {below:.2f}", "kept right": _percent(share)})
    return rows


def _measured(evidence: Evidence, half: npt.NDArray[np.bool_], rule: Rule) -> tuple[float, ...]:
    """Of the other half: right, kept right, share kept, calibration error before, with temperature, and with both."""
    chosen_on, others = evidence.only(half), evidence.only(~half)
    judged = judge(others, choose(chosen_on, rule))
    right, pixels = others.totals()
    scalings = [Scaling(), *(fit_scaling(*chosen_on.totals(), offset=offset) for offset in (False, True))]
    errors = [calibration_error(diagram(each(CONFIDENCE), right, pixels)) for each in scalings]
    kept_right, kept = judged.precision, judged.share
    return (right.sum() / pixels.sum(), *(np.nan if each is None else each for each in (kept_right, kept, *errors)))


def _row(split: str, values: npt.ArrayLike) -> Row:
    shown = np.asarray(values, float)
    names = ("all right", "kept right", "share kept")
    errors = ("calibration error", "with temperature", "with temperature and offset")
    return {
        "split": split,
        **{name: _percent(value) for name, value in zip(names, shown[:3], strict=True)},
        **{name: f"{value:.3f}" for name, value in zip(errors, shown[3:], strict=True)},
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
