"""One Ray cluster for a whole run, joined or started only if something needs it."""

from __future__ import annotations

import contextlib

from proxyclip.pipeline import run as labelling
from proxyclip.pipeline.opening import Run
from proxyclip.pipeline.relabel import run as relabelling
from proxyclip.pipeline.relabel.opening import Relabelling


class OneCluster(contextlib.ExitStack):
    """Makes the runners of a run. A cluster that was started ends with the block."""

    def __init__(self, address: str | None, *, verbose: bool) -> None:
        super().__init__()
        self._address = address
        self._verbose = verbose
        self._started = False

    def labeller(self, run: Run) -> labelling.Runner:
        """What labels shards."""
        self._start()
        from proxyclip.pipeline.runner import RayRunner

        return RayRunner(run)

    def relabeller(self, run: Relabelling) -> relabelling.Runner:
        """What relabels shards."""
        self._start()
        from proxyclip.pipeline.relabel.runner import RayRunner

        return RayRunner(run)

    def _start(self) -> None:
        if self._started:
            return
        labelling.prepare_ray()
        from proxyclip.pipeline.cluster.join import cluster  # importing Ray takes as long as a run with nothing to do

        self.enter_context(cluster(self._address, verbose=self._verbose))
        self._started = True
