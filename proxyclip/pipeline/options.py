"""The options of `proxyclip label`: what the command line and `proxyclip.label` take."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

import tyro

from proxyclip.config import CODEC_NAMES, AskedDtype

# The quality that labels twice (`pipeline.best`). The others are in `recipes.quality`.
BEST = "best"


def unset(default: str, metavar: str) -> Any:
    """How --help shows an option whose default is decided later."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True)
class LabelOptions:
    """Label every image below a folder or prefix with the classes of a vocabulary.

    Run the same command again to continue a run that stopped. Exit codes: 0, every image has a mask. 1, the run did
    not finish; the last lines say why. 2, the command is wrong. 3, the run finished, but some images failed; failures/
    lists them (with --max-failures this is 0).
    """

    input: str
    """Folder or prefix of images: a path, file:// or s3://BUCKET/PREFIX (endpoint and credentials from AWS_*).
    Tables of URIs, S3 Inventory, Parquet files with images, tar files and hf://datasets/... too: see docs/inputs.md."""
    output: str
    """Folder or prefix to write to. It is created if it does not exist."""
    vocabulary: Annotated[str | None, unset("the benchmark's", "NAME|FILE")] = None
    """Bundled name (voc21, ade20k, ...), or a .txt file (one class per line, synonyms after ";"), .json or .yaml."""

    uri_column: Annotated[str | None, unset("uri, url, path or file_name", "NAME")] = None
    """Column of the input that has URIs of images."""
    image_column: Annotated[str | None, unset("image", "NAME")] = None
    """Column of the input's Parquet files that has images: bytes, or a struct with `bytes`."""
    key_column: Annotated[str | None, unset("none: rows are named by their number", "NAME")] = None
    """Column of the input's Parquet files with a name for each image, which no other row of its file has."""
    benchmark: Annotated[str | None, unset("none", "NAME")] = None
    """Use the settings and the classes that the paper of --preset uses for this benchmark: voc21, voc20, context60,
    context59, context459, cityscapes, ade20k, ade847, coco_object or coco_stuff."""
    embeddings: Annotated[str | None, unset("made by CLIP's text tower", "FILE")] = None
    """Safetensors file with one text embedding per query of the vocabulary. CLIP's text tower is then not used."""
    head: Annotated[str | None, unset("none", "FILE")] = None
    """Head that `proxyclip adapt` learned from this corpus or from another one. It labels instead of the text
    embeddings and brings its vocabulary."""
    preset: str = "proxyclip-b16-dino-b8"
    """Named recipe: method, CLIP, proxy and settings (see `proxyclip presets`). The options below, down to --dtype,
    replace parts of it."""
    student: Annotated[str | None, unset("none", "URI")] = None
    """With --preset student: the --output of `proxyclip train-student`, or its student.safetensors."""
    method: Annotated[str | None, unset("the preset's", "STR")] = None
    """How CLIP's last block mixes patches: proxyclip, clip, maskclip, sclip, clearclip, gem, naclip or naclip-kk. Or a
    network of its own instead of CLIP: sam3, cliprc, or an installed plug-in's (see `proxyclip presets`)."""
    method_weights: Annotated[str | None, unset("the plug-in's", "PATH")] = None
    """Weights of a method with a network of its own: for sam3 a folder, as transformers reads it; for
    cliprc a folder or a file (docs/cliprc.md)."""
    method_settings: Annotated[str | None, unset("the method's", "JSON|FILE")] = None
    """Settings of a method with a network of its own, for instance '{"presence": false}'."""
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
    logit_scale: Annotated[float | None, unset("the preset's", "FLOAT")] = None
    """Factor on the cosines before the softmax."""
    background_threshold: Annotated[float | None, unset("the paper's for preset and vocabulary, else 0", "FLOAT")] = (
        None
    )
    """A pixel whose best probability is below this becomes background."""
    area_threshold: Annotated[float | None, unset("the benchmark's, else 0", "FLOAT")] = None
    """A class keeps its pixels only if it covers more than this share of the pixels that are not background (SCLIP)."""
    ignore_below: float = 0.0
    """A pixel whose confidence is below this is written as ignore (255, or 65535 with more than 255 classes)."""
    thresholds: Annotated[str | None, unset("none", "FILE")] = None
    """File of `proxyclip calibrate` with a threshold for each class, a path or URI. It takes the place of
    --ignore-below."""
    pamr_steps: Annotated[int | None, unset("the preset's", "INT")] = None
    """Steps of PAMR, which refines the labels along the edges of the image. 0 switches it off."""
    guided_radius: int = 0
    """Radius in patches of a guided filter, which follows the colours of the image; 2 is a good value. 0 switches it
    off."""
    presence: float = 0.0
    """Exponent of a prior on classes: the mean of a class's probabilities over the image. 0 switches it off."""
    active: int = 0
    """Decode only so many classes of an image, those with the highest mean probability. 0 decodes all."""
    regions: Annotated[str | None, unset("none", "URI")] = None
    """Folder or prefix with the regions of every image, a path or URI: NAME.png (pixels of equal values are one region)
    or NAME.json (masks in COCO's run lengths) for NAME.jpg. All pixels of a region get one class."""
    quality: str = "exact"
    """exact keeps the settings as they are; balanced and fast use fewer windows and a smaller proxy input. best labels
    twice: the first masks of all images teach a head, which labels again; the first pass stays in OUTPUT.first."""
    fast_decode: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Decode large JPEGs at a half, a quarter or an eighth of their size when that is still large enough. Saves CPU
    time; masks change slightly."""
    confidence_stride: int = 4
    """Confidence maps hold the mean of blocks of this many pixels squared. 1 keeps every pixel."""
    dtype: AskedDtype = "auto"
    """Precision of the networks. auto takes that of the resumed run, else bfloat16 on GPUs and float32 on CPUs. If a
    CPU computes slower in what is asked for than in float32, the run warns and takes float32."""
    force_dtype: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the precision of --dtype even if float32 is faster."""

    keep_features: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep the dense features of every image, for `proxyclip relabel`. The masks are the same."""
    add_features: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only make the features that an output does not have yet, and no masks."""
    collect_statistics: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Keep the sums that `proxyclip adapt` needs for a head: about a megabyte a shard, much less than features. The
    masks are the same."""
    codec: str = "compact"
    """How features are kept: compact (about a tenth of float16) or exact (float16)."""

    shard_size: int = 256
    """Images per shard, the unit of work and of recovery. A shard has fewer if they exceed 128 MiB."""
    concurrency: int | Literal["auto"] = "auto"
    """Number of actors. Each holds the networks; they work in parallel. auto: one on every GPU, more and fewer
    as the cluster grows and shrinks; without GPUs one on every machine."""
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
    image_timeout_s: float = 60.0
    """Time limit for reading one image, in seconds. A slower image fails as timed_out."""
    max_failures: Annotated[str | None, unset("no limit", "COUNT|SHARE")] = None
    """Stop if more images than this fail: a count (25) or a share of the corpus (5%, 0.05)."""
    address: Annotated[str | None, unset("RAY_ADDRESS, which ray job submit sets, else one is started", "STR")] = None
    """Ray cluster to join."""
    log_json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write a line of JSON to stderr for every commit and every warning, instead of a progress bar."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"]), tyro.conf.FlagCreatePairsOff] = False
    """Show Ray's own logs and progress."""

    @property
    def features_codec(self) -> str | None:
        """How this run keeps features; None if it makes none."""
        return self.codec if self.keep_features or self.add_features else None

    def __post_init__(self) -> None:
        for name in ("shard_size", "concurrency", "batch_windows", "confidence_stride"):
            if (value := getattr(self, name)) != "auto" and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads is {self.threads}; it must be at least 1.")
        if not 0 < self.image_timeout_s <= 86400:
            raise ValueError(f"--image-timeout-s is {self.image_timeout_s}; it must be above 0 and at most 86400.")
        if self.num_gpus != "auto" and (self.num_gpus < 0 or (self.num_gpus > 1 and self.num_gpus % 1)):
            raise ValueError(f"--num-gpus is {self.num_gpus}; it must be a fraction below 1 or a whole number.")
        allowed_failures(self.max_failures, 1)
        if self.keep_features and self.add_features:
            raise ValueError("--keep-features labels images and --add-features does not; give one of them.")
        if self.regions and self.add_features:
            raise ValueError("--add-features makes no masks, so leave out --regions.")
        if self.quality == BEST and (self.head is not None or self.add_features):
            raise ValueError("--quality best learns a head and makes masks; leave out --head and --add-features.")
        if self.collect_statistics and (self.features_codec is not None or self.quality == BEST):
            raise ValueError(
                "--collect-statistics takes the place of features, which --keep-features, --add-features and --quality "
                "best keep; give one of them."
            )
        if self.codec not in CODEC_NAMES:
            raise ValueError(f"--codec is {self.codec!r}; it must be one of {', '.join(CODEC_NAMES)}.")
        check_thresholds(self.thresholds, self.ignore_below)
        if self.thresholds and self.add_features:
            raise ValueError("--add-features makes no masks, so leave out --thresholds.")
        if self.head is not None and (self.embeddings is not None or self.add_features):
            raise ValueError("--head brings text embeddings and labels; leave out --embeddings and --add-features.")
        if self.vocabulary is None and self.benchmark is None and self.head is None and not self.add_features:
            raise ValueError(
                "--vocabulary is missing. Give a bundled name or a file, or --benchmark, which brings its own classes."
            )


def check_thresholds(thresholds: object, ignore_below: float) -> None:
    """Raise ValueError if both are given."""
    if thresholds and ignore_below:
        raise ValueError("--thresholds takes the place of --ignore-below; give one of them.")


def allowed_failures(limit: str | None, num_images: int) -> int | None:
    """How many of `num_images` may fail under a --max-failures value; None means all."""
    if limit is None:
        return None
    text = limit.strip()
    try:
        if text.endswith("%") or "." in text:
            share = Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            if 0 <= share <= 1:
                return int(share * num_images)
        elif int(text) >= 0:
            return int(text)
    except ValueError:
        pass
    raise ValueError(f"--max-failures is {limit!r}; give a count (25) or a share (5%, 0.05).")
