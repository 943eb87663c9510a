"""Open a training: find every mistake that a person can make, without Ray and without torch."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from proxyclip.config import fingerprint
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.thresholds import load_thresholds
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.images.inputs.address import input_address
from proxyclip.images.listing import list_images
from proxyclip.pipeline.opening import output_uri
from proxyclip.pipeline.train_student.options import TrainStudentOptions
from proxyclip.recipes.weights import file_hash
from proxyclip.storage.store import Storage, public_uri
from proxyclip.training.student.job import DONE, Job
from proxyclip.training.student.masks import Masks, masks_of, share_of, split
from proxyclip.vocabulary.thresholds import Thresholds

RECORD = "train.json"


@dataclasses.dataclass(frozen=True)
class Opened:
    """A training that can start. recipe: all that decides the weights. finished: there is nothing left to do."""

    options: TrainStudentOptions
    job: Job
    recipe: dict[str, Any]
    finished: bool

    def record(self) -> bytes:
        """What train.json says."""
        return json.dumps({"fingerprint": fingerprint(self.recipe), "recipe": self.recipe}, indent=1).encode()


def open_training(options: TrainStudentOptions) -> Opened:
    """Check everything that can be checked before work starts. Writes nothing.

    Raises ValueError, OSError or ImportError if the training cannot start.
    """
    _require_packages()
    options = _absolute(options)
    masks, labels = masks_of(options.labels), Labels.open(options.labels)
    thresholds = None if options.thresholds is None else load_thresholds(options.thresholds, labels.vocabulary)
    weights = _encoder_hash(options)
    sample = _labelled_sample(options, labels)
    uris = [uri for table in labels.index(["uri"]) for uri in table["uri"].to_pylist()]
    _check_images(options, uris, sample)
    recipe = _recipe(options, masks, weights, sample, thresholds)
    _refuse_another(Storage(options.output), recipe)
    finished = Storage(options.output).exists(DONE)
    if not finished:
        Storage(options.output).check_writable()
    given = None if options.encoder_weights == "none" else options.encoder_weights or "download"
    job = Job(
        settings=options.settings,
        labels=options.labels,
        images=options.images,
        masks=masks,
        output=options.output,
        encoder_weights=given if given in (None, "download") else str(Path(given).absolute()),
        ignore_below=options.ignore_below,
        thresholds=thresholds,
        val_images=options.val_images or options.images or labels.record.input,
        val_labels=options.val_labels or "",
        uris=tuple(sample),
        licences=(
            *(() if options.encoder_licence is None else (("encoder", options.encoder_licence),)),
            ("masks", f"made by the weights of {json.dumps(labels.record.recipe.get('segmenter', {}).get('model'))}"),
        ),
        every=options.checkpoint_every,
        loaders=options.loaders,
        threads=options.threads,
        fraction=options.fraction,
    )
    return Opened(options, job, recipe, finished)


def _absolute(options: TrainStudentOptions) -> TrainStudentOptions:
    """The options with absolute addresses: Ray Train's workers run in folders of their own."""
    made: dict[str, Any] = {"output": output_uri(options.output), "labels": Storage(options.labels).uri}
    for name in ("images", "val_images", "val_labels"):
        if (given := getattr(options, name)) is not None:
            made[name] = input_address(given)
    return dataclasses.replace(options, **made)


def _require_packages() -> None:
    for name in ("segmentation_models_pytorch", "onnx", "onnxscript", "pandas"):
        if find_spec(name) is None:
            raise ImportError(f'train-student needs {name}: pip install "proxyclip[students]"')


def _encoder_hash(options: TrainStudentOptions) -> str:
    if options.encoder_weights is None:
        return "downloaded"
    if options.encoder_weights == "none":
        return "none"
    path = Path(options.encoder_weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"--encoder-weights {path}: there is no such file. Give a file of weights, or none for random ones."
        )
    return file_hash(path)


def _labelled_sample(options: TrainStudentOptions, labels: Labels) -> list[str]:
    if options.val_labels is None:
        return []
    files = LabelFiles(options.val_labels)
    files.digest()  # FileNotFoundError if there are none
    known = {entry.key for entry in Storage(options.val_labels).list()}
    images = list_images(options.val_images or options.images or labels.record.input)
    found = [image.uri for image in images if files.key(image.uri) in known]
    if not found:
        raise ValueError(
            f"--val-labels {public_uri(options.val_labels)}: none of its files has the name of one of {len(images)} "
            "images. Give the folder of the images as --val-images."
        )
    return sorted(found)


def _check_images(options: TrainStudentOptions, uris: list[str], sample: list[str]) -> None:
    learn, held = split(uris, 0 if sample else options.settings.held_out, sample)
    used = len(share_of(learn, uris, options.fraction))
    if used < options.workers:
        raise ValueError(
            f"{used} images to learn from are fewer than {options.workers} workers; use fewer --workers, or label more."
        )
    if not sample and not held:
        raise ValueError(
            f"--held-out {options.settings.held_out:g} of {len(uris)} images is none; raise it, or give --val-labels."
        )


def _recipe(
    options: TrainStudentOptions, masks: Masks, weights: str, sample: list[str], thresholds: Thresholds | None
) -> dict[str, Any]:
    return {
        "settings": dataclasses.asdict(options.settings),
        "masks": masks.fingerprint,
        "classes": list(masks.class_names),
        "encoder_weights": weights,
        "ignore_below": options.ignore_below,
        "thresholds": None if thresholds is None else list(thresholds.values),
        "validation": LabelFiles(options.val_labels).digest() if options.val_labels else "held out",
        "sample": sample,
        "fraction": options.fraction,
        "workers": options.workers,
        "checkpoint_every": options.checkpoint_every,
    }


def _refuse_another(output: Storage, recipe: dict[str, Any]) -> None:
    if not output.exists(RECORD):
        if output.exists("run.json"):
            raise ValueError(f"--output {public_uri(output.uri)} holds labels; give the student another folder.")
        return
    try:
        then = json.loads(output.read(RECORD))["recipe"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{public_uri(output.uri)}/{RECORD} is damaged; train into a new --output.") from error
    now: dict[str, Any] = json.loads(json.dumps(recipe))
    if now == then:
        return
    if now["classes"] != then["classes"]:
        what = f"its classes are {', '.join(then['classes'][:5])}, those of the labels {', '.join(now['classes'][:5])}"
    elif now["masks"] != then["masks"]:
        what = "the labels have changed since (new or renewed images, or another recipe)"
    else:
        flat = [{**each, **each["settings"], "settings": None} for each in (now, then)]
        name = next(name for name in flat[0] if flat[0][name] != flat[1].get(name))
        what = f"its {name} is {flat[1].get(name)!r}, now it is {flat[0][name]!r}"
    raise ValueError(f"--output {public_uri(output.uri)} holds another training: {what}. Give a new --output.")
