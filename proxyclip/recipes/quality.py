"""Speed against quality: three steps from the paper's settings to a fraction of their cost, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxyclip.config import SegmenterConfig


@dataclass(frozen=True)
class Quality:
    """What is given up for speed. What that changes, and what it saves, is measured in BENCHMARKS.md.

    overlap: windows overlap as the settings say, or else only where the last one of a row has to. Images up to a
    third longer than wide have the same windows either way, at the sides of the paper.
    proxy_scale: `ModelConfig.proxy_scale`.
    """

    overlap: bool = True
    proxy_scale: float = 1.0

    def applied_to(self, config: SegmenterConfig) -> SegmenterConfig:
        """A recipe at this quality."""
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
    """The quality of a name, or ValueError that lists the names."""
    if name not in QUALITIES:
        raise ValueError(f"Unknown quality {name!r}; known: {', '.join(QUALITIES)}.")
    return QUALITIES[name]
