"""The options of `proxyclip reprocess`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from proxyclip.config import AskedDtype
from proxyclip.pipeline.options import LabelOptions, unset
from proxyclip.pipeline.relabel.options import RelabelOptions

# Folders of the output.
CORPUS_FOLDER = "corpus"
LABELS_FOLDER = "labels"

# Options that labelling and relabelling have too, and that mean the same there.
_ENCODE = (
    *("preset", "method", "clip", "clip_pretrained", "clip_weights", "proxy", "proxy_weights", "weights"),
    *("gaussian_std", "short_side", "crop", "stride", "quality", "fast_decode", "dtype", "force_dtype", "codec"),
    *("shard_size", "concurrency", "num_gpus", "threads", "batch_windows", "compile", "image_timeout_s"),
    *("max_failures", "address", "verbose"),
)
_DECODE = (
    *("logit_scale", "background_threshold", "area_threshold", "ignore_below", "pamr_steps", "confidence_stride"),
    *("guided_radius", "presence", "active"),
    *("clip_weights", "weights", "max_failures", "address", "verbose"),
)


@dataclass(frozen=True)
class ReprocessOptions:
    """Bring the labels of a corpus up to date: label new images, with every vocabulary of a folder.

    Made to be run again and again by a scheduler. A run with nothing to do ends without starting Ray. Exit codes: 0,
    all is up to date. 1, something is not: the last lines name it. 2, the command is wrong. 3, all is up to date, but
    some images failed (with --max-failures this is 0).
    """

    input: str
    """Folder or prefix of images: a path, file:// or s3://BUCKET/PREFIX (endpoint and credentials from AWS_*).
    Tables of URIs, S3 Inventory, Parquet files with images, tar files and hf://datasets/... too: see docs/inputs.md."""
    vocabularies: str
    """Folder or prefix with a .txt, .json or .yaml file for each vocabulary. NAME.safetensors beside it may hold one
    text embedding per query; CLIP's text tower is then not used."""
    output: str
    """Folder or prefix to write to: features to corpus/, masks to labels/NAME/VERSION/."""
    uri_column: Annotated[str | None, unset("uri, url, path or file_name", "NAME")] = None
    """Column of the input that has URIs of images."""
    image_column: Annotated[str | None, unset("image", "NAME")] = None
    """Column of the input's Parquet files that has images: bytes, or a struct with `bytes`."""
    key_column: Annotated[str | None, unset("none: rows are named by their number", "NAME")] = None
    """Column of the input's Parquet files with a name for each image, which no other row of its file has."""
    keep_versions: int = 3
    """How many finished versions of a vocabulary are kept, with the current one. Older ones are deleted."""

    preset: str = "proxyclip-b16-dino-b8"
    """Named recipe: method, CLIP, proxy and settings (see `proxyclip presets`). The options below, down to --codec,
    replace parts of it. They belong to the features: another value needs another --output."""
    method: Annotated[str | None, unset("the preset's", "STR")] = None
    """How CLIP's last block mixes patches: proxyclip, clip, maskclip, sclip, clearclip, gem, naclip or naclip-kk."""
    clip: Annotated[str | None, unset("the preset's", "STR")] = None
    """Name of an open_clip model, or local-dir:FOLDER."""
    clip_pretrained: Annotated[str | None, unset("the preset's", "STR")] = None
    """Tag of open_clip's weights for --clip."""
    clip_weights: Annotated[str | None, unset("downloaded by name", "FILE")] = None
    """File with the weights of CLIP, a path or URI."""
    proxy: Annotated[str | None, unset("the preset's", "STR")] = None
    """Short name (dino-b8, dinov3-b16, sam-b, ...), name of a timm vision transformer, or local-dir:FOLDER."""
    proxy_weights: Annotated[str | None, unset("downloaded by name", "FILE")] = None
    """File with the weights of the proxy, a path or URI."""
    weights: Annotated[str | None, unset("downloaded by name", "URI")] = None
    """Folder or prefix that `proxyclip fetch-weights` filled with all that the preset needs: nothing is downloaded by
    name."""
    gaussian_std: Annotated[float | None, unset("the preset's", "FLOAT")] = None
    """Width of NACLIP's Gaussian, in patches. Other methods do not use it."""
    short_side: Annotated[int | None, unset("the preset's", "INT")] = None
    """Short side of the resized image, in pixels."""
    crop: Annotated[int | None, unset("the preset's", "INT")] = None
    """Side of a window, in pixels. 0 makes the whole image one window."""
    stride: Annotated[int | None, unset("the preset's", "INT")] = None
    """Distance between windows, in pixels."""
    quality: str = "exact"
    """exact keeps the settings as they are; balanced and fast use fewer windows and a smaller proxy input."""
    fast_decode: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Decode large JPEGs at a half, a quarter or an eighth of their size when that is still large enough."""
    dtype: AskedDtype = "auto"
    """Precision of the networks. auto takes that of the resumed run, else bfloat16 on GPUs and float32 on CPUs. If a
    CPU computes slower in what is asked for than in float32, the run warns and takes float32."""
    force_dtype: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the precision of --dtype even if float32 is faster."""
    codec: str = "compact"
    """How features are kept: compact (about a tenth of float16) or exact (float16)."""

    logit_scale: Annotated[float | None, unset("the preset's", "FLOAT")] = None
    """Factor on the cosines before the softmax. Another value of this or of the options down to --confidence-stride
    gives every vocabulary a new version."""
    background_threshold: Annotated[float | None, unset("the paper's for preset and vocabulary, else 0", "FLOAT")] = (
        None
    )
    """A pixel whose best probability is below this becomes background."""
    area_threshold: Annotated[float | None, unset("0", "FLOAT")] = None
    """A class keeps its pixels only if it covers more than this share of the pixels that are not background (SCLIP)."""
    ignore_below: float = 0.0
    """A pixel whose confidence is below this is written as ignore (255, or 65535 with more than 255 classes)."""
    pamr_steps: Annotated[int | None, unset("the preset's", "INT")] = None
    """Steps of PAMR. More than 0 reads every image again for every vocabulary."""
    guided_radius: int = 0
    """Radius in patches of a guided filter, which follows the colours of the image; 2 is a good value. 0 switches it
    off. Reads every image again for every vocabulary."""
    presence: float = 0.0
    """Exponent of a prior on classes: the mean of a class's probabilities over the image. 0 switches it off."""
    active: int = 0
    """Decode only so many classes of an image, those with the highest mean probability. 0 decodes all."""
    confidence_stride: int = 4
    """Confidence maps hold the mean of blocks of this many pixels squared. 1 keeps every pixel."""

    shard_size: int = 256
    """Images per shard, the unit of work and of recovery. A shard has fewer if they exceed 128 MiB."""
    concurrency: int | Literal["auto"] = "auto"
    """Number of actors that encode images. Each holds the networks; they work in parallel. auto: one on every GPU, more
    and fewer as the cluster grows and shrinks; without GPUs one on every machine."""
    num_gpus: float | Literal["auto"] = "auto"
    """GPUs per actor. With a fraction, several actors share a GPU. auto: 1 if the cluster has GPUs, or starts machines
    with them when they are asked for; else 0."""
    threads: Annotated[int | None, unset("an actor's share of its machine's cores", "INT")] = None
    """CPU threads of each actor."""
    batch_windows: int = 32
    """Windows per batch on a GPU. On a CPU windows are always processed one by one."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compile the networks on GPUs (torch.compile). Every actor starts half a minute later and is faster from then
    on."""
    relabel_concurrency: Annotated[int | None, unset("the cluster's cores", "INT")] = None
    """Number of processes that make masks of features, with one CPU thread each."""
    image_timeout_s: float = 60.0
    """Time limit for reading one image, in seconds. A slower image fails as timed_out."""
    max_failures: Annotated[str | None, unset("no limit", "COUNT|SHARE")] = None
    """Stop if more images than this fail: a count (25) or a share of the corpus (5%, 0.05)."""
    address: Annotated[str | None, unset("RAY_ADDRESS, which ray job submit sets, else one is started", "STR")] = None
    """Ray cluster to join."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"]), tyro.conf.FlagCreatePairsOff] = False
    """Show Ray's own logs and progress."""

    def __post_init__(self) -> None:
        if self.keep_versions < 1:
            raise ValueError(f"--keep-versions is {self.keep_versions}; it must be at least 1.")
        self.of_corpus()
        self.of_vocabularies(("any",))

    @property
    def corpus(self) -> str:
        """Where the features are."""
        return f"{self.output}/{CORPUS_FOLDER}"

    @property
    def labels(self) -> str:
        """Where the masks are."""
        return f"{self.output}/{LABELS_FOLDER}"

    def of_corpus(self) -> LabelOptions:
        """The options with which the features are made. What only concerns masks stays out of their recipe."""
        return LabelOptions(self.input, self.corpus, add_features=True, **self._values(_ENCODE))

    def of_vocabularies(self, names: tuple[str, ...]) -> RelabelOptions:
        """The options with which the masks are made."""
        concurrency = self.relabel_concurrency
        return RelabelOptions(self.corpus, self.labels, names, concurrency=concurrency, **self._values(_DECODE))

    def _values(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}
