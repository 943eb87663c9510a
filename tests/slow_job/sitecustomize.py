"""Makes every labelling job ten times slower (or FACTOR times), to show that no test depends on who is faster.

    PYTHONPATH=tests/slow_job .venv/bin/python -m pytest -m "not slow" -n 2 --dist loadfile

Python imports this module when it starts, in the tests and in all their processes. An actor that has labelled some
images then waits nine times as long as that took.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import time
from types import ModuleType

FACTOR = float(os.environ.get("FACTOR", "10"))
SLOWED = "proxyclip.pipeline.stages.label"


class _Slower(importlib.abc.MetaPathFinder):
    """Finds the module as Python does, and slows it down when it has been executed."""

    def find_spec(self, name, path=None, target=None):
        if name != SLOWED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            label = module.NetworkLabeller.label

            def slowly(self, images, vocabulary):
                started = time.monotonic()
                found = label(self, images, vocabulary)
                time.sleep((FACTOR - 1) * (time.monotonic() - started))
                return found

            module.NetworkLabeller.label = slowly

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Slower())
