"""The options of `proxyclip train-cliprc`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from proxyclip.training.cliprc.settings import LOSS_WEIGHTS, Mode


@dataclass(frozen=True)
class TrainCliprcOptions:
    """Train CLIP-RC: masks of some classes teach it, and it labels others too.

    Run the same command again to continue a training that stopped.
    """

    labels: str
    """Folder of index PNGs under the images' names (255 is ignore), or an output of `proxyclip label`."""
    output: str
    """Folder or prefix for the trained checkpoint, cliprc.safetensors, and what a resumed training needs."""
    images: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None
    """Folder or prefix of the photographs. For an output: where they are now, if they were moved."""
    vocabulary: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE")] = None
    """The classes of the labels, in the order of their values. For an output: its own."""
    embeddings: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Text embeddings of the vocabulary, in place of those of CLIP's text tower."""
    unseen: Annotated[str | None, tyro.conf.arg(metavar="SPLIT|FILE|NAMES")] = None
    """Classes whose labels are not used: voc20 or coco_stuff for the published splits, a file with one name a line, or
    names separated by ";"."""
    mode: Mode = "inductive"
    """inductive: unseen classes do not exist in training. transductive: their pixels get pseudo-labels. fully: all
    labels are used."""
    recipe: Literal["voc", "coco-stuff"] = "voc"
    """Loss weights, number of prompts and prompt templates of the release for this data set."""

    clip: str = "ViT-B-16-quickgelu"
    """An open_clip model with CLIP's own vision transformer, or local-dir:FOLDER."""
    clip_pretrained: str = "openai"
    """Tag of its weights."""
    clip_weights: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Its weights as a file, in place of a download."""
    start_from: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Begin with the weights of another training's cliprc.safetensors, as the release does for transductive."""

    iterations: int = 40_000
    """Steps of the optimizer."""
    batch: int = 8
    """Images of each worker in a step."""
    image_px: int = 512
    """Side of the windows, in pixels."""
    prompts: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Prompt tokens; by default those of --recipe."""
    loss_weights: Annotated[tuple[float, float, float] | None, tyro.conf.arg(metavar="FOCAL DICE RECOVERY")] = None
    """By default those of --recipe and --mode."""
    lr: float = 2e-4
    """Learning rate after the warm-up."""
    warmup: int = 1500
    """Iterations in which the learning rate rises."""
    seed: int = 0
    """Of weights, order and augmentation."""

    frozen_bridge: bool = True
    """As in the release, the bridge tokens are not trained."""
    decay_norms: bool = True
    """As in the release, weight decay acts on norms and biases too."""
    ignored_are_negatives: bool = True
    """As in the release, pixels without a label count as negatives of every class."""

    score_images: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None
    """Photographs to score the trained checkpoint on: pixel accuracy, mIoU of seen and unseen classes."""
    score_labels: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None
    """Their labels, as index PNGs."""
    save_every: int = 500
    """Iterations between two states that a resumed training can begin with."""
    workers: int = 1
    """Processes that train together, with Ray Train. 0: in this process, without Ray."""
    num_gpus: Annotated[int | None, tyro.conf.arg(metavar="0|1")] = None
    """GPUs of each worker; by default 1 if the cluster has any."""
    address: Annotated[str | None, tyro.conf.arg(metavar="STR")] = None
    """Ray cluster to join; by default RAY_ADDRESS, else one is started here."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"]), tyro.conf.FlagCreatePairsOff] = False
    """Show Ray's own logs."""

    def __post_init__(self) -> None:
        for name, least in (("iterations", 1), ("batch", 1), ("image_px", 1), ("save_every", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least {least}.")
        if self.prompts is not None and self.prompts < 1:
            raise ValueError(f"--prompts is {self.prompts}; it must be at least 1.")
        if not 0 < self.lr < 1:
            raise ValueError(f"--lr is {self.lr}; it must be above 0 and below 1.")
        if self.mode != "fully" and self.unseen is None:
            raise ValueError(f"--mode {self.mode} needs --unseen, the classes whose labels are not used.")
        if (self.score_images is None) != (self.score_labels is None):
            raise ValueError("Give both --score-images and --score-labels, or neither of them.")
        if self.num_gpus not in (None, 0, 1):
            raise ValueError(f"--num-gpus is {self.num_gpus}; a worker trains on 0 or 1 GPU.")

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of focal, dice and recovery loss."""
        return self.loss_weights or LOSS_WEIGHTS[self.recipe][self.mode]
