"""The verb that lists presets."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg


def presets(like: Annotated[Positional[str], arg(metavar="[PART]")] = "") -> int:
    """List the presets: cost, licences of the weights, and published mIoU on each benchmark, in percent.

    The cost is counted on the networks, in GFLOP to encode an image of 500 x 375 pixels. Published figures hold at
    the benchmark's settings (--benchmark), which cost more for some.

    Args:
        like: Only list presets whose name contains this.
    """
    from proxyclip.recipes.benchmarks import BENCHMARKS
    from proxyclip.recipes.licences import forbids_commercial_use
    from proxyclip.recipes.presets import PRESETS, PUBLISHED_ON

    names = [name for name in PRESETS if like in name]
    if not names:
        raise ValueError(f"No preset has {like!r} in its name; `proxyclip presets` lists all.")
    from proxyclip.models.cost import gflop_per_image

    width = max(map(len, names))
    shown = " ".join(f"{BENCHMARKS[name]:>11}" for name in PUBLISHED_ON)
    print(f"{'preset':{width}} {'GFLOP':>6} {shown}  licences of the weights")
    for name in names:
        chosen = PRESETS[name]
        figures = " ".join(f"{chosen.published_miou.get(benchmark, ''):>11}" for benchmark in PUBLISHED_ON)
        licences = ", ".join(
            f"{part} {licence}{' (not for commercial use)' if forbids_commercial_use(licence) else ''}"
            for part, licence in chosen.licences.items()
        )
        print(f"{name:{width}} {gflop_per_image(chosen.config):6.0f} {figures}  {licences}", flush=True)
    return 0
