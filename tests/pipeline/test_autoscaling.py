"""A cluster that starts without a GPU, grows to four machines with one each, and loses two of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from labelling import files
from PIL import Image
from ports import free_port
from ray_head import RAY, pids, ray_head, with_token

from proxyclip.dataset.upkeep.verify import verify
from proxyclip.storage.store import Storage

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 240
NUM_GPUS, NUM_IMAGES = 4, 40
HEAD = "f" * 51 + "00000"

# A method that needs no GPU. An actor labels one image, then waits in the encoder until a gate opens.
METHOD = """
    import os, time
    from pathlib import Path

    import torch

    from proxyclip import RunningLabels


    class Gated:
        encoded = 0

        def encode(self, image):
            gates = Path(os.environ["GATES"])
            while self.encoded and not (gates / "open").exists():
                (gates / f"waiting-{os.getpid()}").touch()
                time.sleep(0.05)
            self.encoded += 1
            return torch.from_numpy(image) / 255

        def decode(self, encoded, vocabulary):
            labels = RunningLabels(encoded.shape[:2], encoded.device)
            for index in range(vocabulary.num_classes):
                labels.add(index, encoded[..., 1 + index])
            return labels.decoded()


    def load(settings, files, *, device, dtype):
        return Gated()
"""

# Machines after the first come once a gate opens. Ray Data asks for machines with as much memory as those it has, which
# Ray's stand-in for machines cannot declare.
MACHINES = """
    import os
    from pathlib import Path

    from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


    class Provider(FakeMultiNodeProvider):
        def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
            if len(self._nodes) > 1 and not Path(os.environ["GATES"], "more").exists():
                return
            kept = {name: value for name, value in resources.items() if name != "memory"}
            super().create_node_with_resources_and_labels(node_config, tags, count, kept, labels)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, and what is installed beside the project: the method, and what starts machines."""
    folder = tmp_path_factory.mktemp("autoscaling")
    site, info = folder / "site", folder / "site" / "gated-0.1.0.dist-info"
    info.mkdir(parents=True)
    (site / "gated_model.py").write_text(textwrap.dedent(METHOD))
    (site / "gpu_machines.py").write_text(textwrap.dedent(MACHINES))
    (site / "gated.py").write_text(
        "from proxyclip import TeacherMethod\n"
        "METHOD = TeacherMethod(load='gated_model:load', licence='Apache-2.0', find_weights=lambda given: {})\n"
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gated\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[proxyclip.methods]\ngated = gated:METHOD\n")
    for name in ("gates", "images"):
        (folder / name).mkdir()
    for index in range(NUM_IMAGES):
        image = np.full((8, 9, 3), index, np.uint8)
        image[: 1 + index % 8, :, 1] = 255
        Image.fromarray(image).save(folder / "images" / f"{index:02d}.png")
    (folder / "two.txt").write_text("one\ntwo")
    return folder


@pytest.fixture
def env(place):
    """The environment of a cluster on loopback, with a token of its own, and of what joins it."""
    return with_token(place) | {
        "GATES": str(place / "gates"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(place / "site"), os.environ.get("PYTHONPATH")))),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on 127.0.0.1
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "10",  # after this a machine that is gone is replaced
    }


@pytest.fixture
def cluster(env, place):
    """The address of a head with one CPU, whose autoscaler starts machines with a GPU when they are asked for."""
    port = free_port()
    kinds = {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": 2, "GPU": 1, "memory": 2**40, "object_store_memory": 100 * 2**20},
            "node_config": {},
            "min_workers": 0,
            "max_workers": NUM_GPUS,
        },
    }
    config = {
        "cluster_name": "fake",
        "max_workers": NUM_GPUS,
        "provider": {
            "type": "external",
            "module": "gpu_machines.Provider",
            "launch_multiple": True,
            "disable_node_updaters": True,
            "head_node_id": HEAD,
            "gcs_address": f"127.0.0.1:{port}",
        },
        "available_node_types": kinds,
        "head_node_type": "ray.head.default",
        "idle_timeout_minutes": 1,
        "auth": {},
        **{key: {} for key in ("file_mounts", "docker")},
        **{f"{part}setup_commands": [] for part in ("", "head_", "worker_")},
        **{f"{part}_start_ray_commands": [] for part in ("head", "worker")},
        **{key: [] for key in ("cluster_synced_files", "initialization_commands")},
    }
    config_file = place / "cluster.json"
    config_file.write_text(json.dumps(config))
    with ray_head(
        env, f"--port={port}", "--num-cpus=1", "--include-dashboard=false", f"--autoscaling-config={config_file}"
    ):
        yield f"127.0.0.1:{port}"


def wait(until: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not until():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def machines() -> set[str]:
    """Ids of the machines with a GPU that run."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = dict(item.split(b"=", 1) for item in (process / "environ").read_bytes().split(b"\0") if item)
            program = (process / "cmdline").read_bytes().split(b"\0")[0]
            if variables.get(b"RAY_NODE_TYPE_NAME") == b"gpu" and program.endswith(b"raylet/raylet"):
                found.add(variables[b"RAY_CLOUD_INSTANCE_ID"].decode())
    return found


def switch_off(machine: str) -> None:
    """Kill all that runs on a machine: a raylet alone would leave its actors behind."""
    for pid in pids(f"RAY_CLOUD_INSTANCE_ID={machine}"):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def waiting(place: Path) -> set[int]:
    """Living actors that wait at a gate."""
    names = [path.name.rpartition("-")[2] for path in (place / "gates").glob("waiting-*")]
    return {int(name) for name in names if Path("/proc", name).exists()}


def command(place: Path, output: Path, *words: str) -> list[str]:
    base = [sys.executable, str(ROOT / "jobs" / "label.py"), "--input", str(place / "images"), "--output", str(output)]
    base += ["--vocabulary", str(place / "two.txt"), "--method", "gated", "--shard-size", "1", "--dtype", "float32"]
    return [*base, *words]


@pytest.mark.slow
def test_a_run_uses_every_gpu_that_comes_and_gets_over_those_that_go(place, env, cluster, tmp_path):
    """Nothing waits for all of them, a machine goes with notice and one without, and the bytes are those of one CPU."""
    output = tmp_path / "out"
    with (tmp_path / "said.txt").open("w") as said:
        job = subprocess.Popen(
            command(place, output, "--address", cluster), env=env, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            wait(lambda: list(output.glob("commits/*.json")) or job.poll() is not None)
            assert len(machines()) == 1, (tmp_path / "said.txt").read_text()
            (place / "gates" / "more").touch()
            wait(lambda: len(waiting(place)) == NUM_GPUS or job.poll() is not None)
            assert job.poll() is None, (tmp_path / "said.txt").read_text()
            noticed, unnoticed = sorted(machines())[:2]
            drain = [RAY, "drain-node", "--address", cluster, "--node-id", noticed, "--reason-message", "spot"]
            drain += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "5"]
            subprocess.run(list(map(str, drain)), env=env, check=True, capture_output=True)
            switch_off(unnoticed)
            time.sleep(5)
            switch_off(noticed)
            wait(lambda: len(waiting(place)) <= NUM_GPUS - 2)
            (place / "gates" / "open").touch()
            assert job.wait(DEADLINE_S) == 0, (tmp_path / "said.txt").read_text()
        finally:
            job.kill()
            job.wait()
    alone = subprocess.run(command(place, tmp_path / "alone", "--num-gpus", "0"), env=env, capture_output=True)
    assert alone.returncode == 0, alone.stderr
    assert files(str(output)) == files(str(tmp_path / "alone"))
    report = verify(Storage(str(output)))
    assert report.images == NUM_IMAGES
    assert not report.problems
    assert not report.unfinished
