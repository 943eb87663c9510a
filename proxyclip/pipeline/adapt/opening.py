"""Open an adaptation: find every mistake that a person can make, without Ray and without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

from proxyclip.dataset.features.collected import read_collected_record
from proxyclip.dataset.features.record import FeatureRecord, read_features_record, require_features
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.run_record import has_embeddings, read_vocabulary
from proxyclip.evaluation.calibration.sample import Sample
from proxyclip.evaluation.labels.coding import Coding
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.evaluation.labels.matching import matching_of
from proxyclip.pipeline.adapt.options import AdaptOptions
from proxyclip.pipeline.opening import output_uri
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.names import Vocabulary


@dataclass(frozen=True)
class Marks:
    """Label files of people. uris: the images that they are of. waiting: images that are not labelled by the job yet.

    state: 16 hex digits that change when a label, or what its values mean, changes.
    """

    files: LabelFiles
    coding: Coding
    uris: frozenset[str]
    shards: frozenset[int]
    waiting: int
    state: str


@dataclass(frozen=True)
class Adaptation:
    """An adaptation that can start.

    options: with absolute source and output. labels: the output whose vocabulary and images count. vocabulary: with
    text embeddings. source: where the features are, or the statistics that were collected in their place. collected:
    whether it is these. scale: factor on the cosines. marks: None without label files.
    """

    options: AdaptOptions
    labels: Labels
    vocabulary: Vocabulary
    source: Storage
    features: FeatureRecord
    scale: float
    collected: bool = False
    marks: Marks | None = None

    @property
    def destination(self) -> Storage:
        """The folder that the head is written to."""
        return Storage(self.options.output.rpartition("/")[0])

    @property
    def name(self) -> str:
        """The head's file in that folder."""
        return self.options.output.rpartition("/")[2]

    @property
    def work(self) -> str:
        """URI of the folder that keeps the sums of the shards."""
        return f"{self.options.output}.statistics"


def open_adaptation(options: AdaptOptions) -> Adaptation:
    """Check everything that can be checked before work starts. Writes nothing.

    Raises ValueError, FileNotFoundError or another OSError: no labelled output, neither features nor collected
    statistics, no text embeddings, features that another model made, label files that fit no image.
    """
    labels = Labels.open(options.source)
    options = replace(options, source=labels.storage.uri, output=output_uri(options.output))
    shown = public_uri(labels.storage.uri)
    source = labels.storage if labels.record.source is None else Storage(labels.record.source)
    features = read_features_record(source)
    collected = None if features is not None else read_collected_record(labels.storage)
    if features is None:
        features = collected or require_features(source)
    if collected is not None:
        source = labels.storage
        if options.labels is not None:
            raise ValueError(
                f"{shown} has statistics and no features, and --labels needs features of the labelled images. Run its "
                "labelling command again with --add-features."
            )
    weights = labels.record.recipe.get("weights")
    if weights is not None and weights != features.encoder["weights"]:
        raise ValueError(
            f"The labels of {shown} were made with other weights than the features of {public_uri(source.uri)}; "
            "features of two models cannot be mixed. Label one of them again."
        )
    if not has_embeddings(labels.storage):
        raise ValueError(f"{shown} has no text embeddings yet. Let its job label at least one shard first.")
    vocabulary = read_vocabulary(labels.storage)
    assert vocabulary.embeddings is not None
    if vocabulary.embeddings.shape[1] != features.dim:
        raise ValueError(
            f"The text embeddings of {shown} have rows of {vocabulary.embeddings.shape[1]} numbers, but its features "
            f"have width {features.dim}."
        )
    scale = labels.record.recipe["segmenter"]["decode"]["logit_scale"]
    marks = None if options.labels is None else _marks(options, options.labels, labels)
    adaptation = Adaptation(options, labels, vocabulary, source, features, scale, collected is not None, marks)
    if f"{options.output}/".startswith(f"{labels.storage.uri}/"):
        raise ValueError(f"--output {options.output} is inside {shown}; write the head elsewhere.")
    adaptation.destination.check_writable()
    return adaptation


def _marks(options: AdaptOptions, uri: str, labels: Labels) -> Marks:
    coding = matching_of(
        labels.vocabulary,
        map_file=options.map,
        names=options.label_names,
        ignore=options.ignore,
        reduce_zero_label=options.reduce_zero_label,
    ).coding
    files = LabelFiles(Storage(uri).uri, options.label_suffix, options.image_suffix)
    sample = Sample(labels, files)
    if not sample.shards:
        raise ValueError(
            f"--labels {public_uri(files.uri)}: none of its {sample.waiting} images has a mask yet; wait until the "
            "labelling job has committed their shards."
        )
    values = [sorted(coding.classes.items()), sorted(coding.ignored), sorted(coding.outside)]
    parts = [files.digest(), files.suffix, files.image_suffix, values]
    state = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    uris = frozenset().union(*sample.shards.values())
    return Marks(files, coding, uris, frozenset(sample.shards), sample.waiting, state)
