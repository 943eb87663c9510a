"""The options of `proxyclip evaluate` and of `jobs/evaluate.py --benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from proxyclip.config import AskedDtype
from proxyclip.pipeline.options import LabelOptions, unset


@dataclass(frozen=True)
class EvaluateOptions:
    """Score the masks of an output against labels."""

    output: Annotated[Positional[str], arg(metavar="OUT")]
    """The --output of `proxyclip label`: a folder or s3://BUCKET/PREFIX. It need not be finished."""
    labels: str
    """Folder or prefix of the label files: images of one channel whose values are classes. The label of a/b.jpg is
    a/b.png there."""
    label_suffix: str = ".png"
    """What a label's name ends in, in place of --image-suffix."""
    image_suffix: Annotated[str | None, unset("its extension", "STR")] = None
    """The end of an image's name that --label-suffix replaces."""
    label_names: Annotated[str | None, unset("values are the indices of the output's classes", "NAME|FILE")] = None
    """The names of the label values, as a vocabulary: value 0 is its first class. Values count as the class of the
    output that has the same name; those without one are listed, and their pixels are not scored."""
    map: Annotated[str | None, unset("none", "FILE")] = None
    """File that gives label values to classes of the output: JSON ({"0": "road", "255": null}), or text with one
    "VALUE: NAME" a line. Without a name, the value is ignored. An image with a value that is not there is not
    scored."""
    ignore: Annotated[int | None, unset("255, or 65535 with more than 255 classes", "INT")] = None
    """Label value of pixels that are not scored."""
    reduce_zero_label: Annotated[bool, FlagCreatePairsOff] = False
    """0 is ignored too, and classes count from 1."""
    unseen: Annotated[str | None, unset("none", "NAMES|FILE")] = None
    """Also give zero-shot scores for these unseen classes: names separated by ",", or by ";" if a name has a comma; a
    file with one name a line; or voc20 or coco_stuff, for the usual split of these."""
    worst: int = 50
    """How many of the worst images to list."""
    to: Annotated[str | None, unset("OUT/evaluation", "URI")] = None
    """Folder or prefix to write to."""
    concurrency: Annotated[int | None, unset("the cluster's cores", "INT")] = None
    """Number of processes that score on a Ray cluster. With fewer than 2000 images and no --address, there is none."""
    address: Annotated[str | None, unset("RAY_ADDRESS, which ray job submit sets, else one is started", "STR")] = None
    """Ray cluster to join."""
    verbose: Annotated[bool, arg(aliases=["-v"]), FlagCreatePairsOff] = False
    """Show Ray's own logs and progress."""

    def __post_init__(self) -> None:
        if self.map is not None and (self.label_names is not None or self.reduce_zero_label):
            other = "--label-names" if self.label_names is not None else "--reduce-zero-label"
            raise ValueError(f"--map says what every value is; leave {other} out.")
        if self.ignore is not None and not 0 <= self.ignore <= 65535:
            raise ValueError(f"--ignore is {self.ignore}; it must be from 0 to 65535.")
        if self.worst < 0:
            raise ValueError(f"--worst is {self.worst}; it must be 0 or more.")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"--concurrency is {self.concurrency}; it must be at least 1.")


@dataclass(frozen=True)
class BenchmarkOptions:
    """Label a benchmark with the paper's settings and score the masks."""

    benchmark: str
    """voc21, voc20, context60, context59, context459, cityscapes, ade20k, ade847, coco_object or coco_stuff."""
    data: str
    """Your own copy of the data set, in its usual layout: docs/evaluation.md lists the folders. A path or a URI."""
    output: str
    """Folder or prefix to write masks to; scores go to evaluation/ in it."""
    preset: str = "proxyclip-b16-dino-b8"
    """Named recipe (see `proxyclip presets`). Its paper fixes windows and thresholds."""
    unseen: Annotated[str | None, unset("none", "NAMES|FILE")] = None
    """Also give zero-shot scores for these unseen classes: see `proxyclip evaluate`."""
    worst: int = 50
    """How many of the worst images to list."""

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
    embeddings: Annotated[str | None, unset("made by CLIP's text tower", "FILE")] = None
    """Safetensors file with one text embedding per query of the benchmark's vocabulary."""
    quality: str = "exact"
    """exact keeps the paper's settings; balanced and fast use fewer windows and a smaller proxy input."""
    dtype: AskedDtype = "auto"
    """Precision of the networks. auto takes that of the resumed run, else bfloat16 on GPUs and float32 on CPUs. If a
    CPU computes slower in what is asked for than in float32, the run warns and takes float32."""
    force_dtype: Annotated[bool, FlagCreatePairsOff] = False
    """Take the precision of --dtype even if float32 is faster."""
    shard_size: int = 64
    """Images per shard, the unit of work and of recovery."""
    concurrency: int | Literal["auto"] = "auto"
    """Number of actors that label. Each holds the networks; they work in parallel. auto: one on every GPU, more and
    fewer as the cluster grows and shrinks; without GPUs one on every machine."""
    num_gpus: float | Literal["auto"] = "auto"
    """GPUs per actor. With a fraction, several actors share a GPU. auto: 1 if the cluster has GPUs, or starts machines
    with them when they are asked for; else 0."""
    threads: Annotated[int | None, unset("an actor's share of its machine's cores", "INT")] = None
    """CPU threads of each actor."""
    batch_windows: int = 32
    """Windows per batch on a GPU. On a CPU windows are always processed one by one."""
    image_timeout_s: float = 60.0
    """Time limit for reading one image, in seconds."""
    address: Annotated[str | None, unset("RAY_ADDRESS, which ray job submit sets, else one is started", "STR")] = None
    """Ray cluster to join."""
    verbose: Annotated[bool, arg(aliases=["-v"]), FlagCreatePairsOff] = False
    """Show Ray's own logs and progress."""

    def label_options(self, images: str) -> LabelOptions:
        """The options to label the images with."""
        fields = {name: value for name, value in vars(self).items() if name not in ("data", "unseen", "worst")}
        return LabelOptions(input=images, **fields)
