"""The verbs that show labels: preview."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg

from proxyclip.gallery.options import PreviewOptions


def preview(options: Annotated[PreviewOptions, arg(name="")]) -> int:
    """Draw what a run has labelled so far: overlays and a contact sheet, in OUT/preview/."""
    from proxyclip.dataset.layout import CLASS_STATS
    from proxyclip.gallery.preview import preview as draw

    keys = draw(options)
    output = options.output.rstrip("/")
    print(f"Masks and confidence (Parquet): {output}/masks/")
    print(f"Statistics per class:           {output}/{CLASS_STATS}")
    print(f"Overlays, {len(keys) - 1} pictures:          {output}/preview/")
    print(f"Contact sheet:                  {output}/{keys[-1]}")
    return 0
