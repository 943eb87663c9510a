"""The options of `proxyclip relabel`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from proxyclip.pipeline.options import allowed_failures, check_thresholds, unset

MAX_VOCABULARIES = 1000


@dataclass(frozen=True)
class RelabelOptions:
    """Label a corpus with another vocabulary, from the features that `proxyclip label --keep-features` kept.

    Images are read for PAMR and the guided filter only, and no vision network is loaded. Run the same command again to
    continue a run that stopped, or after the source has grown. Exit codes are those of `proxyclip label`.
    """

    source: str
    """The --output of `proxyclip label --keep-features`."""
    output: str
    """Folder or prefix to write to. With several vocabularies, each gets a folder of its name in it."""
    vocabulary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, unset("the head's", "NAME|FILE")] = ()
    """Bundled name (voc21, ade20k, ...), or a .txt, .json or .yaml file. Give the option once for each vocabulary:
    features are read once for all."""

    embeddings: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, unset("made by CLIP's text tower", "FILE")] = ()
    """Safetensors file with one text embedding per query of the vocabulary. Give the option once for each vocabulary,
    in the same order, or not at all."""
    head: Annotated[str | None, unset("none", "FILE")] = None
    """Head that `proxyclip adapt` learned from this corpus or from another one, for its one vocabulary."""
    clip_weights: Annotated[str | None, unset("as for the source", "FILE")] = None
    """File with the weights of CLIP, for its text tower; a path or URI."""
    weights: Annotated[str | None, unset("as for the source", "URI")] = None
    """Folder or prefix that `proxyclip fetch-weights` filled, in place of --clip-weights."""
    benchmark: Annotated[str | None, unset("none", "NAME")] = None
    """Use the thresholds that the paper of the source's preset uses for this benchmark."""
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
    thresholds: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, unset("none", "FILE")] = ()
    """File of `proxyclip calibrate` with a threshold for each class, a path or URI. It takes the place of
    --ignore-below. Give the option once for each vocabulary, in the same order, or not at all."""
    pamr_steps: Annotated[int | None, unset("the preset's", "INT")] = None
    """Steps of PAMR. More than 0 reads every image again."""
    guided_radius: int = 0
    """Radius in patches of a guided filter, which follows the colours of the image; 2 is a good value. 0 switches it
    off. Reads every image again."""
    presence: float = 0.0
    """Exponent of a prior on classes: the mean of a class's probabilities over the image. 0 switches it off."""
    active: int = 0
    """Decode only so many classes of an image, those with the highest mean probability. 0 decodes all."""
    regions: Annotated[str | None, unset("none", "URI")] = None
    """Folder or prefix with the regions of every image, a path or URI: NAME.png (pixels of equal values are one region)
    or NAME.json (masks in COCO's run lengths) for NAME.jpg. All pixels of a region get one class."""
    confidence_stride: int = 4
    """Confidence maps hold the mean of blocks of this many pixels squared. 1 keeps every pixel."""

    concurrency: Annotated[int | None, unset("the cluster's cores", "INT")] = None
    """Number of processes that decode, with one CPU thread each."""
    max_failures: Annotated[str | None, unset("no limit", "COUNT|SHARE")] = None
    """Stop if more images than this have no mask: a count (25) or a share of the corpus (5%, 0.05)."""
    address: Annotated[str | None, unset("RAY_ADDRESS, which ray job submit sets, else one is started", "STR")] = None
    """Ray cluster to join."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"]), tyro.conf.FlagCreatePairsOff] = False
    """Show Ray's own logs and progress."""

    def __post_init__(self) -> None:
        if self.head is not None and (len(self.vocabulary) > 1 or self.embeddings):
            raise ValueError("--head brings one vocabulary and its embeddings; leave out --embeddings and others.")
        if not self.vocabulary and self.head is None:
            raise ValueError("--vocabulary is missing. Give a bundled name or a file.")
        if len(self.vocabulary) > MAX_VOCABULARIES:
            raise ValueError(
                f"There are {len(self.vocabulary)} --vocabulary; give at most {MAX_VOCABULARIES} in one command."
            )
        for name in ("embeddings", "thresholds"):
            count = len(getattr(self, name))
            if count not in (0, len(self.vocabulary) or 1):
                raise ValueError(
                    f"There are {len(self.vocabulary)} --vocabulary and {count} --{name}; give one file of {name} for "
                    "each vocabulary, in the same order, or none."
                )
        check_thresholds(self.thresholds, self.ignore_below)
        if self.confidence_stride < 1:
            raise ValueError(f"--confidence-stride is {self.confidence_stride}; it must be at least 1.")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"--concurrency is {self.concurrency}; it must be at least 1.")
        allowed_failures(self.max_failures, 1)
