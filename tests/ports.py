"""Ports for servers that the tests start."""

from __future__ import annotations

import contextlib
import random
import socket

# Between the ports of Ray's workers and those the system gives to outgoing connections: else a connection of a test
# that runs beside may take a port between its choice and the start of the server.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as taken:
        ports: list[int] = []
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            with contextlib.suppress(OSError):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise RuntimeError(f"fewer than {count} ports of {_PORTS} are free")
