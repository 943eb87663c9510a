"""What a training leaves: the student, the same as ONNX and torch.export files, curves and predictions as pictures."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from proxyclip.models.student.card import FILE, Card
from proxyclip.models.student.teacher import to_bytes
from proxyclip.storage.store import Storage
from proxyclip.training.student.loop import Training
from proxyclip.training.student.validation import Pair, labelled_by
from proxyclip.vocabulary.palette import default_palette

DONE = "done.json"
ONNX, EXPORTED = "student.onnx", "student.pt2"
_SHOWN = 6
_OPSET = 18


class Normalised(nn.Module):
    """uint8 or float pixels (B, 3, H, W) from 0 to 255 to logits: nothing is left to do for who runs the file."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(card.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(card.std).view(3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network((image - self.mean) / self.std)
        return logits


def write_results(training: Training) -> Card:
    """Write everything; `done.json` last."""
    storage, network = Storage(training.job.output), training.ema.cpu().eval()
    parameters = sum(each.numel() for each in network.parameters())
    last = training.history[-1]
    measured = {"miou": round(last["miou"], 4), "on": training.validation.kind, "images": len(training.validation)}
    card = dataclasses.replace(training.card, parameters=parameters, score=measured)
    storage.write(FILE, to_bytes(network, card))
    storage.write("card.json", card.to_json().encode())
    for name, data in exported(network, card).items():
        storage.write(name, data)
    storage.write("curves.png", curves(training.history))
    shown = list(training.validation.pairs(range(min(_SHOWN, len(training.validation)))))
    if shown:
        storage.write("predictions.png", sheet(network, shown, card))
    storage.write("history.json", json.dumps(training.history).encode())
    storage.write(DONE, json.dumps(measured).encode())
    return card


def exported(network: nn.Module, card: Card) -> dict[str, bytes]:
    """The ONNX and the torch.export file, for one image of `short_side` squared: float (1, 3, S, S), 0 to 255."""
    model, image = Normalised(network, card).eval(), torch.zeros(1, 3, card.short_side, card.short_side)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (image,))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        path = Path(folder) / ONNX
        torch.onnx.export(
            model,
            (image,),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            opset_version=_OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
        return {ONNX: path.read_bytes(), EXPORTED: buffer.getvalue()}


def sheet(network: nn.Module, pairs: list[Pair], card: Card, side: int = 200) -> bytes:
    """Rows of image, label and prediction."""
    palette = np.zeros((65536, 3), np.uint8)
    colours = np.asarray(default_palette(len(card.classes)), np.uint8).reshape(-1, 3)
    palette[: len(colours)] = colours
    canvas = Image.new("RGB", (3 * side, len(pairs) * side), "white")
    for row, (image, label) in enumerate(pairs):
        found = labelled_by(network, image, card, torch.device("cpu"))
        parts = (image.permute(1, 2, 0).numpy(), palette[label], palette[found])
        for column, pixels in enumerate(parts):
            part = Image.fromarray(np.ascontiguousarray(pixels)).resize((side - 4, side - 4), Image.Resampling.NEAREST)
            canvas.paste(part, (column * side + 2, row * side + 2))
    return _png(canvas)


def curves(history: list[dict[str, float]], width: int = 640, height: int = 320) -> bytes:
    """Loss and mIoU over the steps."""
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    steps = [each["step"] for each in history]
    for name, colour, where in (("loss", "firebrick", 10), ("miou", "navy", 26)):
        values = [each[name] for each in history]
        top = max([value for value in values if value == value], default=1.0) or 1.0
        points = [
            (40 + (width - 60) * step / steps[-1], height - 30 - (height - 70) * value / top)
            for step, value in zip(steps, values, strict=True)
            if value == value
        ]
        if len(points) > 1:
            draw.line(points, fill=colour, width=2)
        draw.text((44, where), f"{name}: last {values[-1]:.3g}, scale 0 to {top:.3g}", fill=colour)
    draw.line([(40, 40), (40, height - 30), (width - 20, height - 30)], fill="black")
    draw.text((width - 120, height - 24), f"{int(steps[-1])} steps", fill="black")
    return _png(canvas)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
