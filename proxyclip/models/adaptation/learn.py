"""Learn a head from the statistics of a corpus, or say why the text embeddings stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from proxyclip.models.adaptation.fit import Moments, choose, discriminant, log_prior
from proxyclip.models.adaptation.rows import ENOUGH_IMAGES, Text, head_rows, text_rows
from proxyclip.models.adaptation.statistics import UNIT, Statistics
from proxyclip.vocabulary.heads import Head
from proxyclip.vocabulary.names import Vocabulary

# A class needs so much evidence, in images full of it, and so much of it for all that it has of all images: what is
# spread thinly over many images is mostly other classes' patches.
ENOUGH_EVIDENCE = 0.05
ENOUGH_IN_PLACE = 0.02

# A head that labels so much as the text does has little to correct; what a second round changes is chance.
LIKE_THE_TEXT = 0.95


@dataclass(frozen=True)
class Lesson:
    """A head, and what there is to say about it. again: whether a second round is worth while."""

    head: Head
    remarks: tuple[str, ...]
    again: bool


def learn(
    first: Statistics,
    vocabulary: Vocabulary,
    scale: float,
    encoder: dict[str, Any],
    provenance: dict[str, Any],
    second: Statistics | None = None,
) -> Lesson:
    """Learn a head.

    first: statistics by the text embeddings; the evidence and the choice of settings are theirs. second: statistics by
    a head that was learned from `first`, if its `again` said so; None: learn that one. scale: factor on the cosines.
    Raises ValueError if there is no image.
    """
    assert vocabulary.embeddings is not None
    images = int(first.images.sum())
    if images == 0:
        raise ValueError("there are no images to learn from.")
    evidence = first.evidence * UNIT
    enough = (evidence >= ENOUGH_EVIDENCE) & (evidence >= ENOUGH_IN_PLACE * first.shares * UNIT)
    text = Text(scale * vocabulary.embeddings.astype(np.float64), vocabulary.query_class)
    remarks = []
    rows = text_rows(text)
    adapted = np.zeros_like(enough)
    about: dict[str, Any] = {"images": images, "rounds": 1 if second is None else 2}
    if enough.sum() < 2:
        remarks.append(
            f"{int(enough.sum())} of {len(enough)} classes have evidence in {images} images; two at least are needed. "
            "The head labels as the text embeddings do."
        )
    else:
        try:
            choice = choose(first)
            moments = Moments.of(first if second is None else second)
            found = discriminant(moments.means, moments.covariance(choice.shrinkage), log_prior(first))
            trust = min(images / ENOUGH_IMAGES, 1.0)
            adapted = enough
            patches = first.sample.patches.astype(np.float64)
            rows = head_rows(found, text, adapted, patches, trust)
            same = text.scores(patches).argmax(axis=1) == rows.scores(patches).argmax(axis=1)
            about |= {**choice.plain(), "trust": trust, "like_the_text": round(float(same.mean()), 4)}
            if trust < 1:
                remarks.append(
                    f"{images} images are few: the head is {trust:.0%} what they teach and {1 - trust:.0%} the text "
                    f"embeddings. From {ENOUGH_IMAGES} images on it is all theirs."
                )
        except np.linalg.LinAlgError as error:
            remarks.append(
                f"The covariance of the patches is singular ({error}). The head labels as the text embeddings do."
            )
    kept = [name for name, is_adapted in zip(vocabulary.class_names, adapted, strict=True) if not is_adapted]
    if adapted.any() and kept:
        remarks.append(f"Too little evidence, text embeddings kept: {', '.join(kept)}.")
    head = Head(
        weights=(rows.weights / scale).astype(np.float32),
        bias=(rows.bias / scale).astype(np.float32),
        row_class=rows.row_class,
        vocabulary=vocabulary,
        evidence=evidence.astype(np.float32),
        adapted=adapted,
        encoder=encoder,
        provenance={**provenance, **about, "remarks": remarks},
    )
    again = second is None and bool(adapted.any()) and about["like_the_text"] < LIKE_THE_TEXT
    return Lesson(head, tuple(remarks), again)
