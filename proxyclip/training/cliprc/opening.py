"""Find every mistake of a person before a training starts, without torch or Ray."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxyclip.config import ModelConfig
from proxyclip.dataset.run_record import read_names, read_vocabulary
from proxyclip.evaluation.zero_shot import unseen_classes
from proxyclip.images.inputs.address import input_address
from proxyclip.models.cliprc.description import check_shapes, description_of
from proxyclip.recipes.architectures import LOCAL_DIR
from proxyclip.recipes.weights import file_hash, weight_files
from proxyclip.storage.store import Storage, public_uri
from proxyclip.training.cliprc import state
from proxyclip.training.cliprc.options import TrainCliprcOptions
from proxyclip.training.cliprc.settings import PROMPTS, Quirks, TrainSettings
from proxyclip.training.examples import is_output, open_examples
from proxyclip.vocabulary.names import Vocabulary


@dataclass(frozen=True)
class OpenedTraining:
    """A training that can start. clip: None if it begins with the weights of `options.start_from`."""

    options: TrainCliprcOptions
    settings: TrainSettings
    vocabulary: Vocabulary
    clip: ModelConfig | None

    @property
    def storage(self) -> Storage:
        """Where it writes."""
        return Storage(self.options.output)

    @property
    def finished(self) -> bool:
        """Whether the checkpoint is written already."""
        return self.storage.exists(state.TRAINED)


def open_training(options: TrainCliprcOptions) -> OpenedTraining:
    """Raises ValueError or FileNotFoundError if the training cannot start, or if the output holds another one."""
    options = _absolute(options)
    vocabulary = _vocabulary(options)
    names = vocabulary.class_names
    unseen = () if options.unseen is None else unseen_classes(options.unseen, vocabulary)
    if len(unseen) == len(names):
        raise ValueError(f"--unseen names all {len(names)} classes; some must have labels.")
    examples = open_examples(options.images, options.labels, names)
    if len(examples) < max(options.workers, 1):
        raise ValueError(f"There are {len(examples)} labelled images for {options.workers} workers; use fewer.")
    _check_classes(examples.classes(), names, unseen, options.mode)
    if options.score_images is not None and options.score_labels is not None:
        if is_output(options.score_labels):
            raise ValueError("--score-labels is an output; scores need labels of people, as index PNGs.")
        open_examples(options.score_images, options.score_labels, names).classes()
    clip, first = _beginning(options, names)
    settings = TrainSettings(
        mode=options.mode,
        classes=names,
        unseen=unseen,
        iterations=options.iterations,
        batch=options.batch,
        weights=options.weights,
        image_px=options.image_px,
        prompts=options.prompts or PROMPTS[options.recipe],
        workers=max(options.workers, 1),
        lr=options.lr,
        warmup=options.warmup,
        seed=options.seed,
        quirks=Quirks(options.frozen_bridge, options.decay_norms, options.ignored_are_negatives),
        inputs=f"{examples.digest} {first} {vocabulary.fingerprint} {options.recipe}",
    )
    storage = Storage(options.output)
    storage.check_writable()
    state.begin(storage, settings)
    return OpenedTraining(options, settings, vocabulary, clip)


def _absolute(options: TrainCliprcOptions) -> TrainCliprcOptions:
    """The options with absolute addresses: Ray Train's workers run in folders of their own."""
    made: dict[str, Any] = {"output": Storage(options.output).uri, "labels": Storage(options.labels).uri}
    for name in ("images", "score_images", "score_labels"):
        if (given := getattr(options, name)) is not None:
            made[name] = input_address(given)
    if options.start_from is not None:
        made["start_from"] = str(Path(options.start_from).absolute())
    if options.clip_weights is not None and "://" not in options.clip_weights:
        made["clip_weights"] = str(Path(options.clip_weights).absolute())
    if options.clip.startswith(LOCAL_DIR):
        made["clip"] = LOCAL_DIR + str(Path(options.clip.removeprefix(LOCAL_DIR)).absolute())
    return replace(options, **made)


def _vocabulary(options: TrainCliprcOptions) -> Vocabulary:
    if options.vocabulary is not None:
        return Vocabulary.load(options.vocabulary, options.embeddings)
    if not is_output(options.labels):
        raise ValueError(f"{public_uri(options.labels)} is no output of `proxyclip label`; give --vocabulary too.")
    storage = Storage(options.labels)
    if options.embeddings is not None:
        return read_names(storage).with_embeddings(options.embeddings)
    try:
        return read_vocabulary(storage)
    except FileNotFoundError:
        return read_names(storage)


def _check_classes(found: set[int], names: tuple[str, ...], unseen: tuple[int, ...], mode: str) -> None:
    """Labels must have something to teach."""
    if not found:
        raise ValueError("Every pixel of the labels is ignored; there is nothing to learn.")
    taught = found if mode == "fully" else found - set(unseen)
    if len(taught) < 2:
        only = f'only of "{names[min(taught)]}"' if taught else "of none"
        raise ValueError(
            f"The labels have pixels {only} of the seen classes; a training needs two or more. Is --unseen right?"
        )
    if mode == "transductive" and not found & set(unseen):
        raise ValueError(
            "No pixel is labelled as an unseen class; --mode transductive needs to know where they are. "
            "Use --mode inductive."
        )


def _beginning(options: TrainCliprcOptions, names: tuple[str, ...]) -> tuple[ModelConfig | None, str]:
    """What the networks begin with, and a hash of it."""
    if options.start_from is None:
        if options.image_px < 32:
            raise ValueError(f"--image-px is {options.image_px}; windows have at least 32 pixels a side.")
        clip = ModelConfig(
            clip=options.clip, clip_pretrained=options.clip_pretrained, clip_weights=options.clip_weights, proxy=None
        )
        return clip, file_hash(weight_files(clip, ["clip"])["clip"])
    path = Path(options.start_from)
    if not path.is_file():
        raise FileNotFoundError(f"--start-from {path}: there is no such file.")
    if path.suffix != ".safetensors":
        raise ValueError(f"--start-from {path}: give the cliprc.safetensors that a training wrote.")
    description = description_of({"checkpoint": path})
    if description.classes != names:
        raise ValueError(f"--start-from {path} knows other classes than the labels: {', '.join(description.classes)}.")
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    check_shapes(shapes, path, recovery=True)
    from proxyclip.models.cliprc.sizes import sizes_of

    sizes = sizes_of({name: shape for name, shape in shapes.items() if name != "text"})
    wanted = options.image_px, options.prompts or PROMPTS[options.recipe]
    if (sizes.image_px, sizes.prompts) != wanted:
        raise ValueError(
            f"--start-from {path} has another architecture: windows of {sizes.image_px} pixels and {sizes.prompts} "
            f"prompts, not {wanted[0]} and {wanted[1]}. Give --image-px {sizes.image_px} --prompts {sizes.prompts}."
        )
    return None, file_hash(path)
