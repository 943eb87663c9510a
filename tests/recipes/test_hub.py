"""The hub: a file from the cache, a download, or a quick refusal in one line, without messages of the libraries."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

CONTENT = b"weights" * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLIP = "timm/vit_base_patch16_clip_224.openai"
LAION = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

FIND = """
import json, logging, sys, time
logging.basicConfig(level=logging.INFO)
from proxyclip.config import ModelConfig
from proxyclip.recipes.weights import weight_files
start = time.monotonic()
try:
    found = {part: str(path) for part, path in weight_files(ModelConfig(**json.loads(sys.argv[1]))).items()}
except FileNotFoundError as error:
    found = {"error": str(error)}
loaded = [name for name in ("torch", "ray", "timm", "open_clip") if name in sys.modules]
print(json.dumps({**found, "seconds": time.monotonic() - start, "loaded": loaded}))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub that serves files: {path: content}. It pauses in the middle of each."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    pause_s = 0.0

    def do_HEAD(self):
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", '"weights-1"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        content = self.files.get(self.path, b"")
        self.wfile.write(content[: len(content) // 2])
        time.sleep(self.pause_s)
        self.wfile.write(content[len(content) // 2 :])

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    """Serves what is put into `hub.files`."""
    monkeypatch.setattr(Hub, "files", {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.files = Hub.files
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def find(tmp_path):
    """`weight_files` in a process of its own: what it finds, and what it writes to stderr."""

    def run(endpoint, values, **environment):
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
        for proxy in ("http_proxy", "https_proxy", "all_proxy"):
            clean.pop(proxy, None), clean.pop(proxy.upper(), None)
        clean |= {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", FIND, json.dumps(values)],
            env=clean | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout), done.stderr

    return run


@contextlib.contextmanager
def silent_server():
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def unknown_host():
    yield "http://hub.invalid"


@pytest.mark.parametrize("place", [closed_port, silent_server, unknown_host])
def test_a_hub_that_cannot_be_reached_is_a_quick_refusal_and_nothing_else(place, find):
    with place() as endpoint:
        found, stderr = find(endpoint, {})
    assert found["seconds"] < 30  # the limit is 10 s, plus time for a slow machine
    assert stderr == ""
    assert found["loaded"] == []
    facts = ("ViT-B-16-quickgelu (openai)", CLIP, "open_clip_model.safetensors", "--clip-weights FILE", "local-dir:")
    assert all(fact in found["error"] for fact in (*facts, "proxy dino-b8", "--proxy-weights FILE"))
    assert "\n" not in found["error"]


def test_the_refusal_of_a_proxy_names_its_own_options(find):
    with closed_port() as endpoint:
        found, _ = find(endpoint, {"clip_weights": __file__})
    facts = ("proxy dino-b8", "timm/vit_base_patch8_224.dino", "model.safetensors", "--proxy-weights FILE", "--proxy ")
    assert all(fact in found["error"] for fact in facts)
    assert "--clip" not in found["error"]


def test_a_file_is_downloaded_once_and_found_again_offline(hub, find):
    hub.files[f"/{CLIP}/resolve/main/open_clip_model.safetensors"] = CONTENT
    found, _ = find(hub.url, {"proxy": None})
    assert Path(found["clip"]).read_bytes() == CONTENT
    with closed_port() as endpoint:
        again, stderr = find(endpoint, {"proxy": None})
        offline, _ = find(endpoint, {"proxy": None}, HF_HUB_OFFLINE="1")
    assert again["clip"] == offline["clip"] == found["clip"]
    assert stderr == ""


def test_a_slow_download_has_no_time_limit(hub, find, monkeypatch):
    """HF_HUB_ETAG_TIMEOUT=2 leaves the hub 4 s to say that it has the file."""
    monkeypatch.setattr(Hub, "pause_s", 4.5)
    hub.files[f"/{CLIP}/resolve/main/open_clip_model.safetensors"] = CONTENT
    found, _ = find(hub.url, {"proxy": None}, HF_HUB_ETAG_TIMEOUT="2")
    assert Path(found["clip"]).read_bytes() == CONTENT
    assert found["seconds"] > 4.5


def test_a_repository_without_safetensors_gives_its_pickle(hub, find):
    hub.files[f"/{LAION}/resolve/main/open_clip_pytorch_model.bin"] = CONTENT
    values = {"clip": "ViT-H-14", "clip_pretrained": "laion2b_s32b_b79k", "proxy": None}
    found, _ = find(hub.url, values)
    assert found["clip"].endswith("open_clip_pytorch_model.bin")
    with closed_port() as endpoint:
        assert find(endpoint, values)[0]["clip"] == found["clip"]


def test_a_repository_without_the_file_is_told(hub, find):
    found, stderr = find(hub.url, {"proxy": None})
    assert "the repository has no such file" in found["error"]
    assert stderr == ""


def test_offline_mode_is_named_as_the_reason(hub, find):
    found, stderr = find(hub.url, {"proxy": None}, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in found["error"]
    assert stderr == ""


def test_a_proxy_of_the_environment_is_used(hub, find):
    """The hub plays the proxy: it is asked for the whole URL."""
    hub.files[f"http://hub.invalid/{CLIP}/resolve/main/open_clip_model.safetensors"] = CONTENT
    found, _ = find("http://hub.invalid", {"proxy": None}, HTTP_PROXY=hub.url, http_proxy=hub.url, NO_PROXY="")
    assert found["clip"].endswith("open_clip_model.safetensors")
