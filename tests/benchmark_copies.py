"""The ten benchmarks in miniature: drawn scenes in each published layout, written from its description."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.masks import confidence_to_png, mask_to_png
from proxyclip.dataset.rows import LabelledImage
from proxyclip.dataset.run_record import RunRecord, begin_run
from proxyclip.dataset.shards import write_shard
from proxyclip.demo.scenes import draw_scene
from proxyclip.images.listing import ImageRef
from proxyclip.pipeline.stages.write import Receipt
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

SIZES = ((48, 64), (60, 60), (64, 48))
VOID, BORDER = -1, -2  # in `Copy.truth`: no class; what only VOC has, the border of an object

CLASSES = {
    "voc21": 21,
    "voc20": 20,
    "context60": 60,
    "context59": 59,
    "context459": 459,
    "cityscapes": 19,
    "ade20k": 150,
    "ade847": 847,
    "coco_stuff": 171,
    "coco_object": 81,
}
_COCO_UNUSED = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
_COCO = np.array([value for value in range(182) if value not in _COCO_UNUSED])
_CITY = np.array([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33])


@dataclass(frozen=True)
class Copy:
    """A benchmark on disk. truth: by the image's uri, its classes with VOID and BORDER. guess: what is predicted."""

    root: Path
    images: Path
    truth: dict[str, np.ndarray]
    guess: dict[str, np.ndarray]


def make(name: str, root: Path, *, as_shipped: bool = False) -> Copy:
    """Write a copy with three images. as_shipped: labels as they are downloaded, if others are made from them."""
    count = CLASSES[name]
    truth, guess = {}, {}
    for number, size in enumerate(SIZES):
        scene = draw_scene(number + 3, size)
        classes = scene.mask.astype(np.int64)
        classes = classes + 252 if count > 256 else classes * 7 % count  # class 255 is there
        wrong = np.roll(classes, 2, axis=1)
        if name not in ("context60", "coco_object"):
            classes[:4] = VOID
        if name == "voc20" or name == "voc21":
            classes[10:12] = BORDER
        image, label, stem = _places(name, number, as_shipped)
        uri = image.name if name != "cityscapes" else f"{image.parent.name}/{image.name}"
        truth[uri], guess[uri] = classes, wrong.astype(np.uint16 if count > 255 else np.uint8)
        for path in (image, label):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.image).save(root / image)
        _save(_values(name, classes, as_shipped), root / label)
        if name in SPLITS:
            split = root / SPLITS[name]
            split.parent.mkdir(parents=True, exist_ok=True)
            with split.open("a") as file:
                file.write(f" {stem}\n")
    if name in SPLITS:  # what is not in the split
        Image.new("RGB", (30, 30)).save(root / image.with_name("not_in_the_split.jpg"))
    return Copy(root, root / image.parent if name != "cityscapes" else root / "leftImg8bit" / "val", truth, guess)


SPLITS = {
    **dict.fromkeys(("voc21", "voc20"), "ImageSets/Segmentation/val.txt"),
    **dict.fromkeys(("context60", "context59", "context459"), "ImageSets/SegmentationContext/val.txt"),
    "ade847": "validation.txt",
}


def _places(name: str, number: int, as_shipped: bool) -> tuple[Path, Path, str]:
    """Image, label and stem."""
    stem = f"2008_00000{number}"
    if name.startswith("voc"):
        return Path(f"JPEGImages/{stem}.jpg"), Path(f"SegmentationClass/{stem}.png"), stem
    if name == "context459":
        return Path(f"JPEGImages/{stem}.jpg"), Path(f"annotations_detectron2/pc459_val/{stem}.tif"), stem
    if name.startswith("context"):
        return Path(f"JPEGImages/{stem}.jpg"), Path(f"SegmentationClassContext/{stem}.png"), stem
    if name == "cityscapes":
        city = ("frankfurt", "lindau", "lindau")[number]
        stem = f"{city}_00000{number}_000019"
        kind = "labelIds" if as_shipped else "labelTrainIds"
        image = Path(f"leftImg8bit/val/{city}/{stem}_leftImg8bit.png")
        return image, Path(f"gtFine/val/{city}/{stem}_gtFine_{kind}.png"), stem
    if name == "ade20k":
        stem = f"ADE_val_0000000{number}"
        return Path(f"images/validation/{stem}.jpg"), Path(f"annotations/validation/{stem}.png"), stem
    if name == "ade847":
        stem = f"ADE_val_0000000{number}"
        folders = ("images_detectron2/validation", "annotations_detectron2/validation")
        return Path(f"{folders[0]}/{stem}.jpg"), Path(f"{folders[1]}/{stem}.tif"), stem
    stem = f"00000000013{number}"
    made = {"coco_stuff": "_labelTrainIds", "coco_object": "_instanceTrainIds"}[name]
    label = f"annotations/val2017/{stem}{'' if as_shipped else made}.png"
    return Path(f"images/val2017/{stem}.jpg"), Path(label), stem


def _values(name: str, classes: np.ndarray, as_shipped: bool) -> np.ndarray:
    """The values of the label file."""
    if name in ("context459", "ade847"):
        return np.where(classes < 0, 65535, classes).astype(np.uint16)
    if name == "voc20":  # of VOC's file: 0 is background, 255 the border
        return np.choose(2 + np.clip(classes, -2, 0), [255, 0, 0]).astype(np.uint8) + np.where(
            classes >= 0, classes + 1, 0
        ).astype(np.uint8)
    if name in ("context59", "ade20k"):
        return (np.where(classes < 0, -1, classes) + 1).astype(np.uint8)
    if as_shipped and name == "cityscapes":
        return np.where(classes < 0, 3, _CITY[classes]).astype(np.uint8)
    if as_shipped and name == "coco_stuff":
        return np.where(classes < 0, 255, _COCO[classes]).astype(np.uint8)
    if as_shipped and name == "coco_object":  # things are 1 to 80; all else is background, unlabelled pixels too
        stuff = np.where(np.arange(classes.size).reshape(classes.shape) % 2, 255, 150)
        return np.where(classes == 0, stuff, _COCO[classes - 1]).astype(np.uint8)
    return np.where(classes < 0, 255, classes).astype(np.uint8)


def _save(values: np.ndarray, path: Path) -> None:
    image = Image.fromarray(values)
    if "SegmentationClass" in path.parts:  # VOC's files have a palette
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)


class Guessing:
    """Stands in for the networks: the masks of a copy's `guess`."""

    retries = 0

    def __init__(self, run, guess: dict[str, np.ndarray]) -> None:
        self._run, self._guess = run, guess

    def dtype(self, asked):
        return asked or "float32"

    def label(self, config, pending):
        manifest, vocabulary = self._run.manifest, self._run.vocabulary
        for task in pending:
            for shard, images in manifest.read_range(task):
                rows = [labelled(image.uri, self._guess[image.uri], vocabulary) for image in images]
                write_shard(manifest.storage, shard, rows, [], vocabulary.class_names)
                yield Receipt(shard, len(rows), 0, None, 0)

    def close(self) -> None:
        pass


def labelled(uri: str, mask: np.ndarray, vocabulary: Vocabulary) -> LabelledImage:
    """A labelled image with this mask."""
    ignore = 255 if vocabulary.num_classes <= 255 else 65535
    classes, pixels = np.unique(mask[mask != ignore], return_counts=True)
    return LabelledImage(
        uri=uri,
        height=mask.shape[0],
        width=mask.shape[1],
        mask=mask_to_png(mask, vocabulary.colours),
        confidence=confidence_to_png(np.full((-(-mask.shape[0] // 4), -(-mask.shape[1] // 4)), 255, np.uint8)),
        classes=classes.tolist(),
        pixels=pixels.tolist(),
        class_confidence=[1.0] * len(classes),
        mean_confidence=1.0,
        ignored=int((mask == ignore).sum()),
    )


def write_output(storage: Storage, masks: dict[str, np.ndarray], vocabulary: Vocabulary) -> None:
    """An output with these masks, by uri."""
    begin_run(storage, RunRecord("/images", {}, "fingerprint"), vocabulary.to_json())
    manifest = Manifest(storage)
    manifest.extend_plan([ImageRef(uri, 1, "1") for uri in sorted(masks)])
    for task in manifest.pending():
        for shard, images in manifest.read_range(task):
            rows = [labelled(image.uri, masks[image.uri], vocabulary) for image in images]
            write_shard(storage, shard, rows, [], vocabulary.class_names)
