"""Draw the first images of a run with their masks: `python jobs/preview.py --output URI`."""

from __future__ import annotations

import sys

import tyro

from proxyclip.gallery.preview import PreviewOptions, preview


def main() -> int:
    """Parse, draw, print where the pictures are; exit code 2 if there is nothing to draw."""
    options = tyro.cli(PreviewOptions)
    try:
        keys = preview(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    output = options.output.rstrip("/")
    print(f"Masks and confidence (Parquet): {output}/masks/")
    print(f"Statistics per class:           {output}/class_stats.parquet")
    print(f"Overlays, {len(keys) - 1} pictures:          {output}/preview/")
    print(f"Contact sheet:                  {output}/{keys[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
