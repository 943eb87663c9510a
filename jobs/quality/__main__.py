"""How good are the labels? `python jobs/quality PART` measures one part and prints its tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

sys.path[0] = str(Path(__file__).resolve().parents[1])  # jobs/ instead of this folder

from performance.tables import Row, markdown  # noqa: E402


@dataclass(frozen=True)
class Borders:
    """Refinements along borders against blind blurs, on drawn scenes with exact labels (demo networks)."""

    methods: tuple[str, ...] = ("proxyclip", "maskclip")
    """Methods whose class probabilities are refined."""
    batches: int = 4
    """Batches of scenes: the spread is over these."""
    scenes: int = 6
    """Scenes in a batch."""
    all: bool = False
    """All settings that were tried, not only the best of each kind."""
    picture: Path | None = None
    """Only draw borders.jpg in this folder: a scene of each kind, its labels, and the masks without and with the
    guided filter."""

    def run(self) -> None:
        from quality.borders import CANDIDATES, CONTROLS, REPORTED, report, sheet

        if self.picture is not None:
            print(sheet(self.picture))
            return

        names = (*CONTROLS, *CANDIDATES) if self.all else REPORTED
        for rows in report(self.methods, self.batches, self.scenes, names):
            _print(rows)


@dataclass(frozen=True)
class Presence:
    """A prior on classes and active classes, with vocabularies of which an image shows little."""

    scenes: int = 12
    """Drawn scenes."""
    folder: Path | None = None
    """Folder with msrc16.json, msrc16.embeddings.safetensors and msrc16-dev/labels, to measure photographs too."""
    labelled: str | None = None
    """Output of `proxyclip label --keep-features` on these photographs."""
    step: int = 1
    """Every such photograph is measured."""

    def run(self) -> None:
        from quality import presence

        for title, rows in presence.tables(self.scenes, self.folder, self.labelled, self.step):
            print(f"\n{title}\n", flush=True)
            _print(rows)


@dataclass(frozen=True)
class Heads:
    """Heads that a corpus teaches: own and other images, few images, few and absent classes."""

    labelled: str | None = None
    """Output of `proxyclip label --keep-features` on labelled photographs. Without it: drawn scenes."""
    labels: Path | None = None
    """Folder of index PNGs under the images' names."""
    scenes: int = 64
    """Drawn scenes, if there are no photographs."""
    weights: Path | None = None
    """Safetensors file whose `head.weight` has a row for each of ImageNet's 1000 names: text for absent classes."""
    seeds: int = 5
    """Draws of each kind."""
    draws: bool = True
    """Whether to draw corpora of few images and few classes."""

    def run(self) -> None:
        from quality import heads

        if self.labelled is not None and self.labels is not None:
            corpus = heads.Corpus.open(self.labelled, self.labels)
        else:
            corpus = heads.Corpus.of_scenes(self.scenes)
        _print(heads.own(corpus))
        if self.weights is not None:
            print()
            _print(heads.absent(corpus, self.weights, range(min(self.seeds, 3))))
        if self.draws:
            print()
            _print(heads.drawn(corpus, range(self.seeds)))


@dataclass(frozen=True)
class Select:
    """Corrected images: those of `proxyclip select` against some drawn by chance, scored on the others."""

    labelled: str
    """Output of `proxyclip label --keep-features` on labelled photographs."""
    labels: Path
    """Folder of index PNGs under the images' names."""
    images: Literal["even", "odd", "all"] = "all"
    """Which photographs: the rule was chosen on the even ones."""
    count: int = 20
    """Images that are corrected."""
    seeds: int = 10
    """Draws by chance."""

    def run(self) -> None:
        from quality import choosing, heads

        corpus = heads.Corpus.open(self.labelled, self.labels)
        every = range(len(corpus.photographs))
        images = {"even": every[::2], "odd": every[1::2], "all": every}[self.images]
        rows = choosing.compared(corpus, images, self.count, range(self.seeds))
        _print(list(rows))


@dataclass(frozen=True)
class Students:
    """Students that learn from ProxyCLIP's masks of half of the photographs, measured on the other half."""

    folder: Path
    """Folder with msrc16-dev, msrc16.json, msrc16.embeddings.safetensors, clip-deit-tiny and vfm-deit-tiny."""
    work: Path
    """Folder for the masks and the students."""
    steps: int = 500
    """Steps of each training."""

    def run(self) -> None:
        from quality import students

        for row in students.rows(self.folder, self.work, self.steps):
            _print([row])


@dataclass(frozen=True)
class Cliprc:
    """CLIP-RC trained on labels of 12 of 16 classes, beside training-free methods; half the photographs each."""

    folder: Path
    """Folder with msrc16.json, msrc16.embeddings.safetensors, msrc16-dev, clip-deit-tiny and vfm-deit-tiny."""
    work: Path
    """Folder for the trainings. The same command goes on."""
    methods: tuple[str, ...] = ("maskclip", "clearclip", "proxyclip")
    """Training-free methods."""
    variants: tuple[str, ...] = ("inductive",)
    """Trainings: inductive, transductive, fully, "bridge trained", "no decay on norms", "ignored pixels left out"."""
    splits: tuple[int, ...] = (0, 1, 2)
    """Which of the three splits of the classes."""
    iterations: int = 1200
    batch: int = 4
    image_px: int = 160
    lr: float = 2e-4

    def run(self) -> None:
        from quality import cliprc

        bench = cliprc.Bench(self.folder, self.work, self.iterations, self.batch, self.image_px, self.lr)
        found = []
        for row in cliprc.rows(bench, self.methods, self.variants, self.splits):
            print(row, flush=True)
            found.append(row)
        _print(found)


def _print(rows: list[Row]) -> None:
    print(markdown(rows), flush=True)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    tyro.cli(Borders | Presence | Heads | Select | Students | Cliprc, description=__doc__).run()


if __name__ == "__main__":
    main()
