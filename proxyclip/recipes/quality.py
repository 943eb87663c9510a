"""Quality: three steps from the paper's settings (exact) to much cheaper ones (fast). best is in `pipeline.best`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxyclip.config import SegmenterConfig
from proxyclip.recipes.names import look_up


@dataclass(frozen=True)
class Quality:
    """What a step changes to save time. BENCHMARKS.md measures the effect on masks and on speed.

    overlap: False makes the stride as large as the crop, so that only the last window of a row overlaps another. At
    the paper's sizes, images up to a third longer than wide keep the same windows.
    proxy_scale: as `ModelConfig.proxy_scale`.
    """

    overlap: bool = True
    proxy_scale: float = 1.0

    def applied_to(self, config: SegmenterConfig) -> SegmenterConfig:
        """The same recipe at this quality."""
        model, windows = config.model, config.windows
        if model.proxy is not None:
            model = replace(model, proxy_scale=self.proxy_scale)
        if not self.overlap and windows.crop:
            windows = replace(windows, stride=windows.crop)
        return replace(config, model=model, windows=windows)


QUALITIES = {
    "exact": Quality(),
    "balanced": Quality(overlap=False, proxy_scale=0.75),
    "fast": Quality(overlap=False, proxy_scale=0.5),
}


def quality(name: str) -> Quality:
    """The quality with this name; ValueError if there is none."""
    return look_up(QUALITIES, name, "quality")
