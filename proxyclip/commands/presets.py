"""The verb that lists presets."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg


def presets(like: Annotated[Positional[str], arg(metavar="[PART]")] = "") -> int:
    """List the presets: cost, licences of the weights, and published mIoU on each benchmark, in percent.

    The cost is counted on the networks, in GFLOP to encode an image of 500 x 375 pixels. Published figures hold at
    the benchmark's settings (--benchmark), which cost more for some. Methods with a network of their own, also those
    of installed plug-ins, come last: they take no preset, but --method.

    Args:
        like: Only list presets and methods whose name contains this.
    """
    from proxyclip.recipes.presets import PRESETS
    from proxyclip.recipes.teachers import TEACHERS, plugin_methods

    names = [name for name in PRESETS if like in name]
    methods = [name for name in (*TEACHERS, *plugin_methods()) if like in name]
    if not names and not methods:
        raise ValueError(f"No preset has {like!r} in its name; `proxyclip presets` lists all.")
    if names:
        _list_presets(names)
    if methods:
        _list_methods(methods)
    return 0


def _list_presets(names: list[str]) -> None:
    from proxyclip.models.cost import gflop_per_image
    from proxyclip.recipes.benchmarks import BENCHMARKS
    from proxyclip.recipes.presets import PRESETS, PUBLISHED_ON

    width = max(map(len, names))
    shown = " ".join(f"{BENCHMARKS[name]:>11}" for name in PUBLISHED_ON)
    print(f"{'preset':{width}} {'GFLOP':>6} {shown}  licences of the weights")
    for name in names:
        chosen = PRESETS[name]
        figures = " ".join(f"{chosen.published_miou.get(benchmark, ''):>11}" for benchmark in PUBLISHED_ON)
        licences = ", ".join(f"{part} {_shown(licence)}" for part, licence in chosen.licences.items())
        print(f"{name:{width}} {gflop_per_image(chosen.config):6.0f} {figures}  {licences}", flush=True)


def _list_methods(names: list[str]) -> None:
    from proxyclip.recipes.teachers import TEACHERS, package_of, plugin_methods, teacher_named

    plugins = plugin_methods()
    width = max(map(len, ("--method", *names)))
    print(f"{'--method':{width}} licence of the weights")
    for name in names:
        source = "" if name in TEACHERS else f", from {package_of(plugins[name])}"
        try:
            print(f"{name:{width}} {_shown(teacher_named(name).licence)}{source}")
        except ValueError as error:  # one broken plug-in must not hide the others
            print(f"{name:{width}} cannot be used: {error}")


def _shown(licence: str) -> str:
    from proxyclip.recipes.licences import forbids_commercial_use

    return f"{licence} (not for commercial use)" if forbids_commercial_use(licence) else licence
