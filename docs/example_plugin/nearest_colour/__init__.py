"""A method that gives a pixel the class of the nearest colour. This file must not import torch."""

from pathlib import Path

from proxyclip import TeacherMethod


def find_weights(given):
    path = Path(given) if given else Path(__file__).with_name("colours.json")
    if not path.is_file():
        raise FileNotFoundError(f"--method-weights {path}: there is no such file.")
    return {"colours.json": path}


def check(settings):
    if settings["sharpness"] <= 0:
        raise ValueError(f"--method-settings: sharpness is {settings['sharpness']}; it must be above 0.")


METHOD = TeacherMethod(
    load="nearest_colour.model:load",
    licence="Apache-2.0",
    find_weights=find_weights,
    settings={"sharpness": 10.0},
    check=check,
)
