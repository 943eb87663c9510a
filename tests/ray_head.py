"""A Ray cluster of one machine, made by `ray start` as a user makes it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RAY = Path(sys.executable).with_name("ray")


def with_token(folder: Path) -> dict[str, str]:
    """The environment of a cluster with a token of its own, and of what joins it. The token is kept in the folder."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    env = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",
    }
    env.pop("RAY_ADDRESS", None)
    return env


@contextlib.contextmanager
def ray_head(env: dict[str, str], *flags: str) -> Iterator[Path]:
    """A head, with its folder; it ends with all that it has started."""
    folder = Path(f"/tmp/proxyclip-{secrets.token_hex(4)}")  # Ray's sockets need a short path
    folder.mkdir()
    said = folder.with_suffix(".txt")
    command = [RAY, "start", "--head", "--block", "--disable-usage-stats", f"--temp-dir={folder}", *flags]
    with said.open("w") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        while "Ray runtime started" not in said.read_text():
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"ray start ended with {process.wait(0.2)}:\n{said.read_text()}")
        yield folder
    finally:
        process.kill()
        process.wait()
        for pid in pids(str(folder)):  # `ray stop` would stop every cluster of this machine
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        said.unlink()


def pids(word: str) -> list[int]:
    """Processes that have a word in their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(word.encode() in (process / name).read_bytes() for name in ("cmdline", "environ")):
                found.append(int(process.name))
    return found
