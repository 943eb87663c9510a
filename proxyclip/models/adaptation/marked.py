"""Images that a person labelled: their statistics, and how these join those of a corpus."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from proxyclip.models.adaptation.patches import Patches
from proxyclip.models.adaptation.sample import PER_CORPUS
from proxyclip.models.adaptation.statistics import UNIT, Counts, Statistics
from proxyclip.models.decoding.stitch import Stitch
from proxyclip.models.features import Features

# The share of a class's patches that labelled ones make up, however few they are beside the corpus: a mean of few
# images that are right against one of many that are partly wrong. From 0.5 to 0.8 it made no difference.
MARKED_SHARE = 0.5

# A labelled patch counts as so many others at most, so that a speck of a class does not decide alone what it is.
MOST = 100


@torch.inference_mode()
def marked_sums(uri: str, features: Features, label: npt.NDArray[np.integer], num_classes: int) -> Statistics:
    """The statistics of an image by its label (H, W); negative values are no class.

    A patch is of the class that most of its labelled pixels have, and weighs as much as these pixels. The evidence of a
    class is its share of the labelled pixels: labels are certain, so small shares count too.
    Raises ValueError, with the image's uri, if a number is not finite.
    """
    classes = np.unique(label[label >= 0]).tolist()
    patches = Patches.of(features)
    if not classes:
        return Statistics.empty(num_classes, patches.features.shape[1])
    stitch, values = Stitch.of(features), torch.tensor(np.asarray(label, np.int64))
    pixels = torch.stack([(stitch.y.matrix.T @ (values == index).float() @ stitch.x.matrix) for index in classes])
    weights, winners = (pixels / values.numel()).flatten(1).max(dim=0)
    probabilities = torch.zeros(len(weights), num_classes)
    probabilities[torch.arange(len(weights)), torch.tensor(classes)[winners]] = 1
    found = Statistics.of_image(uri, patches.features, weights, probabilities)
    found.evidence[...] = found.shares
    return found


def with_marks(corpus: Statistics, said: Statistics, marked: Statistics) -> Statistics:
    """The statistics of a corpus of which a person labelled some images.

    corpus: of all its images, by the text or a head. said: of the labelled images, by the same. marked: of the labelled
    images, by their labels. Of every class that is labelled anywhere, labelled patches count as often as it takes, at
    most `MOST` times, to be `MARKED_SHARE` of its mass. What their second moments become rests on the discriminant's
    own assumption: that the patches of all classes have one covariance.
    """
    others = Statistics.empty(corpus.num_classes, corpus.dim)
    for name in ("images", "mass", "sums", "moments", "evidence", "shares"):
        getattr(others, name)[...] = getattr(corpus, name) - getattr(said, name)
    joined = Statistics.empty(corpus.num_classes, corpus.dim)
    joined.add(others)
    joined.add(marked)
    joined.sample = corpus.sample.with_more(marked.sample, PER_CORPUS)
    mass = marked.mass.sum(axis=0)
    if not mass.any():
        return joined
    times = _times(others.mass.sum(axis=0), mass)
    joined.mass[...] = others.mass + times * marked.mass
    joined.sums[...] = others.sums + times[:, None] * marked.sums
    joined.moments[...] = others.moments + _moments(marked, mass, times)
    return joined


def _times(others: Counts, marked: Counts) -> Counts:
    """(K,): how often the labelled patches of each class count."""
    wanted = MARKED_SHARE / (1 - MARKED_SHARE) * others / np.maximum(marked, 1)
    return np.clip(np.rint(wanted), 1, MOST).astype(np.int64)


def _moments(marked: Statistics, mass: Counts, times: Counts) -> Counts:
    """The second moments of labelled patches that count several times."""
    rows, columns = np.triu_indices(marked.dim)
    real = mass * UNIT
    means = marked.sums.sum(axis=0) * UNIT / np.maximum(real, UNIT)[:, None]

    def between(weights: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return ((means.T * weights) @ means)[rows, columns]

    within = (marked.moments * UNIT - between(real)) / real.sum()
    return np.rint(((times * real).sum() * within + between(times * real)) / UNIT).astype(np.int64)
