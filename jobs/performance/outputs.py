"""Parts that measure what is made of a labelled output: loaders, scores, exports."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from performance.tables import print_table, show


@dataclass(frozen=True)
class Loading:
    """Samples a second that the loaders give to a training, from a labelled output."""

    labels: str
    """The output of a labelling job."""
    images: str | None = None
    """Where its images lie, if they were moved."""
    workers: tuple[int, ...] = (0, 1, 2, 4)
    """Numbers of DataLoader workers."""
    samples: int = 2000
    """Samples of a round: whole epochs, repeated."""
    rounds: int = 3
    """Rounds with each number of workers. The median counts."""

    def run(self) -> None:
        from performance.loading import measure_loading

        show(None, "Loaders: batches of 16 crops of image, mask and confidence")
        print_table(measure_loading(self.labels, self.images, self.workers, self.samples, self.rounds))


@dataclass(frozen=True)
class Scoring:
    """Masks against labels: images per second, for two sizes and few and many classes."""

    images: int = 1000
    """Images of each output."""

    def run(self) -> None:
        from performance.evaluate import measure_scoring

        show("cpu", "Scoring masks of drawn scenes in one process, boundary IoU included")
        with tempfile.TemporaryDirectory() as folder:
            print_table(measure_scoring(Path(folder), self.images))


@dataclass(frozen=True)
class Gallery:
    """A gallery: images/s, bytes an image, and seconds until its page is usable in a browser."""

    output: str
    """An output whose images are there."""
    compare: str | None = None
    """Another output of these images, to compare with."""
    limit: int = 1000
    """Images of the gallery."""
    rounds: int = 3
    """Times that it is built and opened. The median counts."""

    def run(self) -> None:
        from performance.gallery import measure_gallery

        show(None, "Gallery with thumbnails of 480 pixels")
        with tempfile.TemporaryDirectory() as folder:
            print_table(measure_gallery(self.output, self.compare, self.limit, self.rounds, Path(folder)))


@dataclass(frozen=True)
class Calibration:
    """Whether thresholds of confidence keep what they promise: chosen on half of the labelled images, judged on the
    other half."""

    output: str
    """The output of a labelling job."""
    labels: str
    """Folder of label files, whose values are the output's classes."""
    precision: float = 0.9
    """The precision that is asked for."""
    certainty: tuple[float, ...] = (0.9,)
    """Certainties, a table each."""
    splits: int = 100
    """Random halves, beside those of even and odd number."""

    def run(self) -> None:
        from performance.calibration import measure_halves, measure_random_halves, read_evidence
        from proxyclip.evaluation.calibration.choosing import Rule

        evidence = read_evidence(self.output, self.labels)
        for certainty in self.certainty:
            rule = Rule(self.precision, certainty)
            show(None, f"{evidence.num_images} labelled images, precision {self.precision}, certainty {certainty}")
            print_table(measure_halves(evidence, rule) + measure_random_halves(evidence, rule, self.splits))


@dataclass(frozen=True)
class Export:
    """Each format of `proxyclip export`, in one process. The images of the output must be where they were."""

    labels: Path
    """An output of `proxyclip label`, of fewer than 2000 images."""
    rounds: int = 3
    """Times that each export runs. The median counts."""

    def run(self) -> None:
        from performance.export import measure_export

        show(None, "Exports to a disk, one process, from opening to the last file")
        print_table(measure_export(self.labels, self.rounds))


OutputPart = Calibration | Export | Gallery | Loading | Scoring
