"""The verbs that show labels: preview, gallery."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg

from proxyclip.gallery.options import GalleryOptions, PreviewOptions


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


def gallery(options: Annotated[GalleryOptions, arg(name="")]) -> int:
    """Make a gallery of an output: web pages that open from a disk or a web server, with nothing to install.

    Shows masks over images, classes, failures and, with --compare, what another output changed. Run it again to
    renew it. It never changes the labels.
    """
    from proxyclip.gallery.build import gallery as build
    from proxyclip.storage.store import public_uri

    margins = None
    if options.margin:
        from proxyclip.pipeline.relabel.margins import margins_of

        margins = margins_of(options.output)
    built = build(options, margins)
    of = "" if built.shown == built.num_images else f" of {built.num_images}"
    print(f"Gallery of {built.shown}{of} images: {public_uri(built.index)}")
    if built.gone:
        print(f"{built.gone} images are no longer in the input as they were labelled; the gallery shows their masks.")
    if options.compare is not None:
        print(f"Compared with {public_uri(options.compare)}: {built.compared} images")
    return 0
