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
from proxyclip.training.student.job import DONE
from proxyclip.training.student.loop import Training
from proxyclip.training.student.validation import Pair, labelled_by

ONNX, EXPORTED = "student.onnx", "student.pt2"
_SHOWN = 6
_PANEL = (420, 300)  # width and height
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
    storage.write("curves.png", curves(training.losses, training.history))
    shown = list(training.validation.pairs(range(min(_SHOWN, len(training.validation)))))
    if shown:
        colours = training.dataset.labels.vocabulary.colours
        storage.write("predictions.png", sheet(network, shown, card, colours))
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


def sheet(network: nn.Module, pairs: list[Pair], card: Card, colours: np.ndarray, side: int = 200) -> bytes:
    """Rows of image, label and prediction. colours: (K, 3), of the classes; what is ignored is black."""
    palette = np.zeros((65536, 3), np.uint8)
    palette[: len(colours)] = colours
    canvas = Image.new("RGB", (3 * side, len(pairs) * side), "white")
    for row, (image, label) in enumerate(pairs):
        found = labelled_by(network, image, card, torch.device("cpu"))
        parts = (image.permute(1, 2, 0).numpy(), palette[label], palette[found])
        for column, pixels in enumerate(parts):
            part = Image.fromarray(np.ascontiguousarray(pixels)).resize((side - 4, side - 4), Image.Resampling.NEAREST)
            canvas.paste(part, (column * side + 2, row * side + 2))
    return _png(canvas)


def curves(losses: list[tuple[float, float]], history: list[dict[str, float]]) -> bytes:
    """Loss and mIoU over the steps, side by side. losses: steps and values."""
    canvas = Image.new("RGB", (2 * _PANEL[0], _PANEL[1]), "white")
    scores = [(each["step"], each["miou"]) for each in history]
    _draw_curve(canvas, 0, "loss", "firebrick", losses)
    _draw_curve(canvas, _PANEL[0], "mIoU, %", "navy", scores)
    return _png(canvas)


def _draw_curve(canvas: Image.Image, left: int, name: str, colour: str, points: list[tuple[float, float]]) -> None:
    """One panel, from step 0 and value 0 on. Values that are no number are left out."""
    draw, (width, height) = ImageDraw.Draw(canvas), _PANEL
    points = [point for point in points if point[1] == point[1]]
    if not points:
        return
    last, top = points[-1][0], max(value for _, value in points) or 1.0
    x0, x1, y0, y1 = left + 56, left + width - 24, height - 36, 40
    places = [(x0 + (x1 - x0) * step / last, y0 - (y0 - y1) * value / top) for step, value in points]
    for part in range(5):
        y = y0 - (y0 - y1) * part / 4
        draw.line([(x0, y), (x1, y)], fill="lightgrey" if part else "black")
        draw.text((x0 - 6, y), f"{top * part / 4:.3g}", fill="black", anchor="rm")
    draw.line(places, fill=colour, width=2)
    if len(places) <= 40:
        for x, y in places:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    draw.text((x0, 14), f"{name}: {points[-1][1]:.3g} in the end", fill=colour)
    draw.text((x1, y0 + 8), f"step {int(last)}", fill="black", anchor="ra")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
