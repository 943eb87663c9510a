"""A cluster that the job starts for itself cannot be reached from other machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from ipaddress import IPv6Address, ip_address

CODE = """
import json, ray, time
from proxyclip.pipeline.cluster.join import cluster
from ray.thirdparty_files import psutil

@ray.remote
class Actor:
    def ready(self):
        return True

with cluster(None, verbose=False):
    actor = Actor.remote()
    ray.get(actor.ready.remote())
    me = psutil.Process()
    deadline = time.monotonic() + 300
    agents = 0
    while agents < 2 and time.monotonic() < deadline:  # they start after all others
        found = {}
        for process in [me, *me.children(recursive=True)]:
            try:
                listening = [c.laddr for c in process.net_connections("inet") if c.status == "LISTEN"]
                name = " ".join(process.cmdline())
            except psutil.Error:
                continue  # it ended meanwhile
            found[f"{process.pid} {name}"] = listening
        agents = sum("Agent" in name and len(listening) > 0 for name, listening in found.items())
    print(json.dumps(found))
"""


def is_loopback(address: str) -> bool:
    ip = ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback


def test_every_port_of_a_local_cluster_is_on_loopback():
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    run = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    addresses = {(name, *address) for name, listening in found.items() for address in listening}
    for process in ("gcs_server", "raylet", "Actor", "DashboardAgent", "RuntimeEnvAgent"):  # or the list proves nothing
        assert any(process.lower() in name.lower() for name, _, _ in addresses), found
    assert not [address for address in addresses if not is_loopback(address[1])]
