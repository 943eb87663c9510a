"""Open a relabelling: find every mistake that a person can make, without Ray and without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from proxyclip.config import ModelConfig, SegmenterConfig, WindowConfig, fingerprint
from proxyclip.dataset.features.record import FeatureRecord, features_manifest, require_features
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.run_record import RunRecord, has_embeddings, read_run, refuse_another_run, require_run
from proxyclip.pipeline.heads import load_head, refuse_encoder, vocabulary_of, with_head
from proxyclip.pipeline.opening import output_uri, regions_uri
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.recipe import package_versions, recipe_of, segmenter_config
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.recipes.weights import weight_files
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.heads import Head
from proxyclip.vocabulary.names import Vocabulary


@dataclass(frozen=True)
class Target:
    """One vocabulary, and the output that gets its masks."""

    vocabulary: Vocabulary
    config: SegmenterConfig
    manifest: Manifest
    record: RunRecord
    head: Head | None = None

    @property
    def storage(self) -> Storage:
        """The output."""
        return self.manifest.storage


@dataclass(frozen=True)
class Relabelling:
    """A relabelling that can start: everything that was checked, read once.

    options: with absolute source and output. source: the plan of the source with the commits of its features. input:
    URI of the images. weights: hash of each weight file that made the features.
    """

    options: RelabelOptions
    source: Manifest
    input: str
    weights: dict[str, str]
    targets: list[Target]


def open_relabelling(options: RelabelOptions) -> Relabelling:
    """Check everything that can be checked before work starts. Writes nothing.

    Raises ValueError, FileNotFoundError or another OSError if it cannot start: a source without features, a vocabulary
    with errors, embeddings of another width, an output with another recipe.
    """
    source = Storage(options.source)
    options = replace(options, source=source.uri, output=output_uri(options.output))
    run, features = require_run(source), require_features(source)
    if options.regions is not None:
        options = replace(options, regions=regions_uri(options.regions, run.input))
    head = None if options.head is None else load_head(options.head)
    embeddings = options.embeddings or [None] * len(options.vocabulary)
    vocabularies = [Vocabulary.load(*files) for files in zip(options.vocabulary, embeddings, strict=True)]
    if head is not None:
        refuse_encoder(head, options.head, features.encoder)
        vocabularies = [vocabulary_of(head, options.head, vocabularies[0] if vocabularies else None)]
    thresholds = options.thresholds or [None] * len(vocabularies)
    targets = []
    for vocabulary, file, uri in zip(vocabularies, thresholds, _outputs(options), strict=True):
        if uri == source.uri or f"{uri}/".startswith(f"{source.uri}/features/"):
            raise ValueError(f"--output {uri} is the source itself; give another one.")
        targets.append(open_target(vocabulary, options, run, features, uri, file, head))
    return Relabelling(options, features_manifest(source), run.input, features.encoder["weights"], targets)


def open_target(
    vocabulary: Vocabulary,
    options: RelabelOptions,
    run: RunRecord,
    features: FeatureRecord,
    output: str | Callable[[RunRecord], str],
    thresholds: str | None = None,
    head: Head | None = None,
) -> Target:
    """Check one vocabulary and its output. Writes nothing. Raises what `open_relabelling` raises.

    options: with an absolute source, whose run and features are given. output: its URI, or what makes it of the record.
    thresholds: the file for this vocabulary.
    """
    source = Storage(options.source)
    _check_width(vocabulary, features, source)
    config = _config(features, options, vocabulary, thresholds)
    recipe = {
        **recipe_of(config, features.encoder["weights"], vocabulary, options.confidence_stride, options.regions),
        "features": features.codec,
        **with_head(head),
    }
    record = RunRecord(run.input, recipe, fingerprint(recipe), package_versions(), source.uri)
    uri = output if isinstance(output, str) else output(record)
    target = Target(vocabulary, config, Manifest(Storage(uri)), record, head)
    if read_run(target.storage) is None:
        target.storage.check_writable()
    else:
        refuse_another_run(target.storage, record, vocabulary)
    if vocabulary.embeddings is None and not has_embeddings(target.storage):
        weight_files(config.model, ["clip"])  # for the text tower
    return target


def _outputs(options: RelabelOptions) -> list[str]:
    """The output of each vocabulary."""
    if len(options.vocabulary) <= 1:
        return [options.output]
    names = [PurePosixPath(name).stem for name in options.vocabulary]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"Two vocabularies are named {twice[0]!r}, and each gets a folder of its name; rename one of the files."
        )
    return [f"{options.output}/{name}" for name in names]


def _check_width(vocabulary: Vocabulary, features: FeatureRecord, source: Storage) -> None:
    if vocabulary.embeddings is None:
        return
    found = vocabulary.embeddings.shape[1]
    if found != features.dim:
        raise ValueError(
            f"The embeddings of {vocabulary.name!r} have rows of {found} numbers, but the features of "
            f"{public_uri(source.uri)} have width {features.dim}. Use embeddings that were made with the same CLIP."
        )


def _config(
    features: FeatureRecord, options: RelabelOptions, vocabulary: Vocabulary, thresholds: str | None
) -> SegmenterConfig:
    """The networks and windows of the source, and the decoding that labelling with this vocabulary would have."""
    settings = features.settings
    names = (
        "logit_scale",
        "background_threshold",
        "area_threshold",
        "pamr_steps",
        "guided_radius",
        "presence",
        "active",
    )
    label = LabelOptions(
        input=options.source,
        output=options.output,
        vocabulary=vocabulary.name,
        benchmark=options.benchmark,
        preset=settings["preset"],
        quality=settings["quality"],
        ignore_below=options.ignore_below,
        thresholds=thresholds,
        **{name: getattr(options, name) for name in names},
    )
    model = _model(features.encoder["model"], settings, options)
    windows = WindowConfig(**features.encoder["windows"])
    return SegmenterConfig(model, windows, segmenter_config(label, vocabulary).decode)


def _model(recorded: Mapping[str, Any], settings: Mapping[str, Any], options: RelabelOptions) -> ModelConfig:
    """The model of the source; its CLIP can be loaded, its proxy is only named."""
    model = ModelConfig(**recorded)
    model = replace(model, clip=settings["clip"])
    if options.clip_weights or options.weights:
        weights = options.weights and Storage(options.weights).uri
        return replace(model, clip_weights=options.clip_weights, weights=weights)
    return replace(model, clip_weights=settings["clip_weights"], weights=settings.get("weights"))
