"""The output that a verb works on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from proxyclip.storage.store import Storage

Output = Annotated[
    Positional[str], arg(metavar="OUT", help="The --output of `proxyclip label`: a folder or s3://BUCKET/PREFIX.")
]


def run_storage(output: str) -> Storage:
    """The storage of an output. Raises FileNotFoundError if no run was begun there."""
    from proxyclip.dataset.run_record import require_run
    from proxyclip.storage.store import Storage

    storage = Storage(output)
    require_run(storage)
    return storage
