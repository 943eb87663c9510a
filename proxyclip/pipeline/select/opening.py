"""Open a selection: find every mistake that a person can make, without Ray and without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from proxyclip.dataset.features.record import FeatureRecord, read_features_record
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.passes import RECORD, PassRecord
from proxyclip.dataset.run_record import has_embeddings
from proxyclip.pipeline.export.opening import refuse_files, refuse_overlap
from proxyclip.pipeline.opening import output_uri
from proxyclip.pipeline.select.options import SelectOptions
from proxyclip.pipeline.select.work import LookShard
from proxyclip.storage.store import Storage, public_uri

# Raise when records of earlier versions must not be compared with those of today.
RECORDS_VERSION = 1


@dataclass(frozen=True)
class SelectRun:
    """A selection that can begin. options: with an absolute output."""

    options: SelectOptions
    labels: Labels
    record: PassRecord
    work: LookShard


def open_selection(options: SelectOptions) -> SelectRun:
    """Check everything that can be checked before work starts. Writes nothing. Raises ValueError or OSError."""
    labels = Labels.open(options.source)
    shown = public_uri(labels.storage.uri)
    if not labels.totals.labelled:
        raise ValueError(f"{shown} has no labelled images yet; wait until the labelling job has committed a shard.")
    options = replace(options, output=output_uri(options.output))
    destination = Storage(options.output)
    refuse_overlap(destination, labels)
    if not destination.exists(RECORD):
        refuse_files(destination, "selection")
    source = labels.storage if labels.record.source is None else Storage(labels.record.source)
    features = read_features_record(source)
    settings: dict[str, Any] = {"version": RECORDS_VERSION, "features": None}
    scale = 1.0
    if features is not None and not _fit(labels, features):
        features = None
    if features is not None:
        scale = labels.record.recipe["segmenter"]["decode"]["logit_scale"]
        settings["features"] = features.codec
    destination.check_writable()
    record = PassRecord.of("selection", labels, settings)
    work = LookShard(labels.storage.uri, None if features is None else source.uri, scale)
    return SelectRun(options, labels, record, work)


def _fit(labels: Labels, features: FeatureRecord) -> bool:
    """Whether features say something of labels: the same networks made both, and the text embeddings are there."""
    weights = labels.record.recipe.get("weights")
    return has_embeddings(labels.storage) and (weights is None or weights == features.encoder["weights"])
