"""The report of an evaluation: figures from counts, as JSON and Parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proxyclip.dataset.rows import parquet_bytes
from proxyclip.evaluation.confusion import nan_mean, percent
from proxyclip.evaluation.counts import Tally, number
from proxyclip.evaluation.labels.matching import Matching
from proxyclip.evaluation.zero_shot import zero_shot
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

REPORT = "evaluation.json"
IMAGES, CLASSES, CONFUSION, UNSCORED = "images.parquet", "classes.parquet", "confusion.parquet", "unscored.parquet"
# A larger confusion matrix is in Parquet only.
MAX_CLASSES_IN_JSON = 200
# Of the images that were not scored, so many are in the JSON; all are in Parquet.
_LISTED = 100

_IMAGES = pa.schema([("uri", pa.string()), ("miou", pa.float64()), ("accuracy", pa.float64()), ("pixels", pa.int64())])
_UNSCORED = pa.schema([("uri", pa.string()), ("status", pa.string()), ("reason", pa.string())])
_CLASSES = pa.schema(
    [
        ("class", pa.int32()),
        ("name", pa.string()),
        ("scored", pa.bool_()),
        *((name, pa.float64()) for name in ("iou", "accuracy", "boundary_iou")),
        ("pixels", pa.int64()),
        ("predicted", pa.int64()),
    ]
)
_CONFUSION = pa.schema([("true", pa.int32()), ("predicted", pa.int32()), ("pixels", pa.int64())])


@dataclass(frozen=True)
class Report:
    """An evaluation. fields: what evaluation.json says. tally: the counts behind it."""

    fields: dict[str, Any]
    tally: Tally

    @property
    def miou(self) -> float | None:
        """In percent; None if nothing was scored."""
        return self.fields["miou"]

    def write(self, storage: Storage) -> None:
        """Write the tables, and evaluation.json last. The same evaluation gives the same bytes."""
        tally = self.tally
        true, predicted = np.nonzero(tally.matrix.counts)
        pairs = {"true": true, "predicted": predicted, "pixels": tally.matrix.counts[true, predicted]}
        confusion = pa.table({name: pa.array(values) for name, values in pairs.items()}).cast(_CONFUSION)
        no_class = pc.equal(confusion["predicted"], tally.matrix.num_classes)
        unlabelled = pc.if_else(no_class, pa.scalar(None, pa.int32()), confusion["predicted"])
        classes = [
            {"class": index, **values, "predicted": int(total)}
            for index, (values, total) in enumerate(
                zip(self.fields["classes"], tally.matrix.counts[:, :-1].sum(axis=0) + tally.matrix.stray, strict=True)
            )
        ]
        for key, table in (
            (IMAGES, pa.Table.from_pylist([asdict(image) for image in tally.images], _IMAGES)),
            (UNSCORED, pa.Table.from_pylist([asdict(image) for image in tally.unscored], _UNSCORED)),
            (CLASSES, pa.Table.from_pylist(classes, _CLASSES)),
            (CONFUSION, confusion.set_column(1, _CONFUSION.field("predicted"), unlabelled)),
        ):
            storage.write(key, parquet_bytes(table))
        storage.write(REPORT, (json.dumps(self.fields, indent=1, ensure_ascii=False) + "\n").encode())


def make_report(
    tally: Tally,
    vocabulary: Vocabulary,
    matching: Matching,
    *,
    about: Mapping[str, Any],
    unseen: Collection[int] = (),
    num_worst: int = 50,
) -> Report:
    """Compute the figures. about: more fields for the JSON, such as where labels and masks lie."""
    matrix, scored = tally.matrix, list(matching.scored)
    iou, accuracy = matrix.iou(), matrix.accuracy()
    boundary = percent(tally.boundary[:, 0], tally.boundary[:, 1])
    pixels = matrix.counts.sum(axis=1)
    rows = [
        {
            "name": name,
            "iou": number(iou[index]),
            "accuracy": number(accuracy[index]),
            "boundary_iou": number(boundary[index]),
            "pixels": int(pixels[index]),
            "scored": index in set(scored),
        }
        for index, name in enumerate(vocabulary.class_names)
    ]
    worst = sorted((image.miou, image.uri, image) for image in tally.images if image.miou is not None)[:num_worst]
    fields: dict[str, Any] = {
        "miou": number(nan_mean(iou[scored])),
        "aacc": number(matrix.pixel_accuracy),
        "macc": number(nan_mean(accuracy[scored])),
        "boundary_iou": number(nan_mean(boundary[scored])),
        "num_images": len(tally.images),
        "num_unscored": len(tally.unscored),
        **about,
        "zero_shot": asdict(zero_shot(iou, scored, unseen, vocabulary)) if unseen else None,
        "rule": matching.rule,
        "unmatched": {
            "labels": {str(value): name for value, name in sorted(matching.unmatched_labels.items())},
            "classes": list(matching.unmatched_classes),
            "hints": list(matching.hints),
        },
        "unscored": {
            "by_status": dict(sorted(Counter(image.status for image in tally.unscored).items())),
            "first": [asdict(image) for image in tally.unscored[:_LISTED]],
        },
        "classes": rows,
        "worst": [{"uri": uri, "miou": miou, "accuracy": image.accuracy} for miou, uri, image in worst],
        "confusion": matrix.counts.tolist() if matrix.num_classes <= MAX_CLASSES_IN_JSON else None,
    }
    return Report(fields, tally)
