"""Open a run: find every mistake that a person can make, in a second, without Ray and without torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from proxyclip.config import Dtype, RunConfig, SegmenterConfig, fingerprint
from proxyclip.dataset.features.collected import NO_CODEC
from proxyclip.dataset.features.record import FeatureRecord, features_manifest, refuse_other_features
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.plan import ShardRange
from proxyclip.dataset.run_record import RunRecord, read_run, refuse_another_run
from proxyclip.images.inputs.address import input_address, searched_folder
from proxyclip.images.inputs.images import open_images
from proxyclip.images.inputs.sorting import Listing
from proxyclip.images.listing import list_images
from proxyclip.pipeline.heads import load_head, refuse_encoder, vocabulary_of, with_head
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.recipe import encoder_of, feature_record, package_versions, recipe_of, segmenter_config
from proxyclip.pipeline.reprocess.options import ReprocessOptions
from proxyclip.pipeline.teachers import teacher_config, with_student
from proxyclip.recipes.architectures import check_proxy_scale, embed_dim, is_listed_proxy
from proxyclip.recipes.benchmarks import BENCHMARKS
from proxyclip.recipes.names import look_up
from proxyclip.recipes.teachers import check_teacher_weights, is_teacher, package_versions_of, teacher_hashes
from proxyclip.recipes.weights import weight_hashes
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.heads import Head
from proxyclip.vocabulary.names import Vocabulary

InputOptions = TypeVar("InputOptions", LabelOptions, ReprocessOptions)


@dataclass(frozen=True)
class Run:
    """A run that can start: everything that was checked, read once.

    options: with absolute input and output. config: its dtype counts only if `dtype` is set. dtype: as asked for, or
    that of the run to resume; None if it depends on the cluster. vocabulary: None for an output without masks.
    manifest: of the masks, or of the features if the run makes only these. weights: hash of each weight file, by part.
    pending: planned shards without a commit. listing: the input's images; None if planned shards come first. only: the
    uris of the input that count; None: all. packages: versions of the packages of a teacher. head: in place of text
    embeddings. resumed: the output has a run already, and `dtype` is its own.
    """

    options: LabelOptions
    config: RunConfig
    dtype: Dtype | None
    vocabulary: Vocabulary | None
    weights: dict[str, str]
    manifest: Manifest
    pending: list[ShardRange]
    listing: Listing | None
    only: Collection[str] | None = None
    packages: dict[str, str] = field(default_factory=dict)
    head: Head | None = None
    resumed: bool = False

    def list_images(self) -> Listing:
        """The images of the input."""
        return list_images(self.options.input, exclude=self.options.output, only=self.only)

    def config_in(self, dtype: Dtype) -> RunConfig:
        """The configuration with the precision that this run uses."""
        if isinstance(self.config, SegmenterConfig):  # two lines, so that each is checked by its types
            return replace(self.config, model=replace(self.config.model, dtype=dtype))
        return replace(self.config, model=replace(self.config.model, dtype=dtype))

    def record(self, dtype: Dtype) -> RunRecord:
        """What run.json says of this run."""
        stride, regions = self.options.confidence_stride, self.options.regions
        recipe = recipe_of(self.config_in(dtype), self.weights, self.vocabulary, stride, regions)
        recipe |= with_head(self.head)
        asked = None if self.dtype in (None, dtype) else self.dtype
        packages = package_versions(self.packages)
        return RunRecord(self.options.input, recipe, fingerprint(recipe), packages, asked_dtype=asked)

    def features(self, dtype: Dtype) -> FeatureRecord | None:
        """What features.json says of this run's features; None if it makes none."""
        codec, config = self.options.features_codec, self.config_in(dtype)
        if codec is None or not isinstance(config, SegmenterConfig):
            return None
        return feature_record(self.options, config, self.weights, codec)

    def collected(self, dtype: Dtype) -> FeatureRecord | None:
        """What the statistics that this run collects are of; None if it collects none."""
        config = self.config_in(dtype)
        if not self.options.collect_statistics or not isinstance(config, SegmenterConfig):
            return None
        return feature_record(self.options, config, self.weights, NO_CODEC)


def open_run(options: LabelOptions, only: Collection[str] | None = None) -> Run:
    """Check everything that can be checked before work starts. Writes nothing.

    only: the uris of the input to label; None: all.

    Raises ValueError, FileNotFoundError or another OSError if the run cannot start: unknown names, a vocabulary with
    errors, missing weights, an input without images, an output that cannot be written or that has another recipe.
    """
    options = with_student(options)
    options = replace(absolute_input(options), output=output_uri(options.output))
    head = None if options.head is None else load_head(options.head)
    if options.regions is not None:
        options = replace(options, regions=regions_uri(options.regions, options.input))
    vocabulary = _vocabulary(options)
    if head is not None:
        vocabulary = vocabulary_of(head, options.head, vocabulary)
    config, weights, packages = _networks(options, vocabulary)
    if isinstance(config, SegmenterConfig):
        if head is not None:
            refuse_encoder(head, options.head, encoder_of(config, weights))
        _check_embeddings(options, vocabulary, config)
    output = Storage(options.output)
    manifest = features_manifest(output) if options.add_features else Manifest(output)
    recorded = read_run(manifest.storage)
    dtype = None if options.dtype == "auto" else options.dtype
    if recorded is None:
        run = Run(options, config, dtype, vocabulary, weights, manifest, [], None, only, packages, head)
        run = replace(run, listing=run.list_images())
        manifest.storage.check_writable()
        return run
    if dtype is None or (dtype == recorded.asked_dtype and not options.force_dtype):
        dtype = recorded.recipe["segmenter"]["model"]["dtype"]
    run = Run(options, config, dtype, vocabulary, weights, manifest, [], None, only, packages, head, resumed=True)
    refuse_another_run(manifest.storage, run.record(dtype), vocabulary)
    if features := run.features(dtype):
        refuse_other_features(manifest.storage, features)
    pending = manifest.pending()
    if pending and _is_there(options.input, manifest, pending[0]):
        return replace(run, pending=pending)  # what is planned need not wait until the input is listed
    return replace(run, pending=pending, listing=run.list_images())


def absolute_input(options: InputOptions) -> InputOptions:
    """The options with an absolute input, which says by itself which columns count."""
    address = input_address(
        options.input,
        uri_column=options.uri_column,
        image_column=options.image_column,
        key_column=options.key_column,
    )
    return replace(options, input=address, uri_column=None, image_column=None, key_column=None)


def _networks(options: LabelOptions, vocabulary: Vocabulary | None) -> tuple[RunConfig, dict[str, str], dict[str, str]]:
    """The configuration, the hash of each weight file, and the versions of a teacher's packages."""
    if options.method is not None and is_teacher(options.method):
        teacher = teacher_config(options, options.method, vocabulary)
        packages = package_versions_of(options.method)
        check_teacher_weights(teacher.model, vocabulary)
        return teacher, teacher_hashes(teacher.model), packages
    config = segmenter_config(options, vocabulary)
    _check_proxy(config)
    return config, weight_hashes(config.model), {}


def _vocabulary(options: LabelOptions) -> Vocabulary | None:
    if options.vocabulary is not None:
        return Vocabulary.load(options.vocabulary, options.embeddings)
    if options.benchmark is None:
        return None
    look_up(BENCHMARKS, str(options.benchmark), "benchmark")  # a benchmark's vocabulary has its name
    return Vocabulary.load(str(options.benchmark), options.embeddings)


def _check_proxy(config: SegmenterConfig) -> None:
    check_proxy_scale(config.model, config.windows.crop)
    if config.model.proxy is not None and not is_listed_proxy(config.model.proxy):
        # Whether any other network of timm can be a proxy, only the network itself tells; this loads torch.
        from proxyclip.models.networks.build import check_proxy

        check_proxy(config.model, config.windows.crop)


def _check_embeddings(options: LabelOptions, vocabulary: Vocabulary | None, config: SegmenterConfig) -> None:
    if vocabulary is None or vocabulary.embeddings is None:
        return
    width, wanted = vocabulary.embeddings.shape[1], embed_dim(config.model)
    if width != wanted:
        raise ValueError(
            f"--embeddings {options.embeddings}: its rows have {width} numbers, but the text space of this CLIP has "
            f"{wanted}. Use embeddings that were made with the same CLIP."
        )


def output_uri(output: str) -> str:
    """The output, absolute. `ray job submit` runs in a copy of the working directory, which Ray deletes."""
    storage = Storage(output)
    if storage.local and not Path(output).is_absolute() and "runtime_resources" in Path.cwd().parts:
        raise ValueError(
            f"--output {output} is relative, so the output would be in the job's temporary folder, which Ray deletes. "
            "Give an absolute path or a URI."
        )
    return storage.uri


def regions_uri(regions: str, input_uri: str) -> str:
    """The folder of regions, absolute. Raises FileNotFoundError if it is empty, ValueError if it lies in the input."""
    storage, images = Storage(regions), searched_folder(input_uri)
    if images is not None and f"{storage.uri}/".startswith(f"{images.uri}/"):
        raise ValueError(
            f"--regions {public_uri(storage.uri)} lies in the input, so its maps would be labelled as images; move "
            "them to a folder of their own."
        )
    if next(iter(storage.list()), None) is None:
        raise FileNotFoundError(f"--regions {public_uri(storage.uri)} is empty or does not exist.")
    return storage.uri


def _is_there(input_uri: str, manifest: Manifest, shards: ShardRange) -> bool:
    """Whether any image of the first shard exists. If none does, the input may not be mounted; listing it tells."""
    images = open_images(input_uri)
    _, planned = next(manifest.read_range(ShardRange(shards.part, shards.shards[:1])))
    try:
        return any(images.exists(image.uri) for image in planned)
    except (PermissionError, ValueError):
        return True  # an error of that image alone
