"""A Hugging Face hub on loopback: the part of its protocol that downloads use, with true names and our own weights."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS_BYTES = 1 << 20  # larger files lie on another server, as on the hub


class HubServer(ThreadingHTTPServer):
    """Serves files below `folder`/OWNER/NAME as repositories.

    Large files are redirected (302) to a second server, with X-Linked-ETag (their sha256) and X-Linked-Size; small ones
    are answered directly with a git ETag. `renamed` repositories are redirected (307) to their new names. `seen` holds
    method and path of every request, those of the second server with "cdn:" before the method.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Hub)
        self.folder = folder
        self.renamed: dict[str, str] = {}
        self.seen: list[tuple[str, str]] = []
        self.cdn = ThreadingHTTPServer(("127.0.0.1", 0), _Cdn)
        self.cdn.daemon_threads = True
        self.cdn.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.hashes: dict[Path, str] = {}

    def downloads(self) -> list[str]:
        """The files that were sent, by "OWNER/NAME/FILE"."""
        sent = [path.removeprefix("/files/") for method, path in self.seen if method == "cdn:GET"]
        resolve = f"/resolve/{COMMIT}/"
        return sent + [path[1:].replace(resolve, "/") for method, path in self.seen if method == "GET:sent"]

    def sha256(self, path: Path) -> str:
        if path not in self.hashes:
            with path.open("rb") as file:
                self.hashes[path] = hashlib.file_digest(file, "sha256").hexdigest() if _HAS_DIGEST else _digest(file)
        return self.hashes[path]


_HAS_DIGEST = hasattr(hashlib, "file_digest")  # Python 3.11


def _digest(file: Any) -> str:
    return hashlib.sha256(file.read()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


class _Hub(_Handler):
    server: HubServer

    def _answer(self) -> None:
        hub = self.server
        hub.seen.append((self.command, self.path))
        if found := re.fullmatch(
            r"/api/models/([^/]+/[^/?]+)(?:/(revision|tree)/[^/?]+(/[^?]+)?)?(?:\?.*)?", self.path
        ):
            if found[3]:  # a folder in the repository: ours have none
                return self.answer(404, {"X-Error-Code": "EntryNotFound"})
            return self._list(found[1], found[2] or "revision")
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        if not found:
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        repository, name = found.groups()
        common = {"X-Repo-Commit": COMMIT}
        if repository in hub.renamed:
            return self.answer(307, {"Location": self.path.replace(repository, hub.renamed[repository], 1)})
        if not (hub.folder / repository).is_dir():
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        path = hub.folder / repository / name
        if not path.is_file():
            return self.answer(404, common | {"X-Error-Code": "EntryNotFound"})
        if path.stat().st_size < LFS_BYTES:
            data = path.read_bytes()
            if self.command == "GET":
                hub.seen.append(("GET:sent", f"/{repository}/resolve/{COMMIT}/{name}"))
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            return self.answer(200, common | {"ETag": f'"{git}"'}, data)
        linked = {"X-Linked-ETag": f'"{hub.sha256(path)}"', "X-Linked-Size": str(path.stat().st_size)}
        place = f"http://127.0.0.1:{hub.cdn.server_port}/files/{repository}/{name}"
        return self.answer(302, common | linked | {"Location": place, "ETag": '"of-the-redirect"'})

    do_GET = do_HEAD = _answer  # noqa: N815

    def _list(self, repository: str, kind: str) -> None:
        root = self.server.folder / repository
        if not root.is_dir():
            return self.answer(404, {"X-Error-Code": "RepoNotFound"})
        files = [(str(path.relative_to(root)), path) for path in sorted(root.rglob("*")) if path.is_file()]
        if kind == "tree":
            found: Any = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": COMMIT} for name, path in files
            ]
        else:
            found = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name, _ in files]}
        return self.answer(200, {"Content-Type": "application/json"}, json.dumps(found).encode())


class _Cdn(_Handler):
    server: Any

    def _answer(self) -> None:
        hub: HubServer = self.server.hub
        hub.seen.append((f"cdn:{self.command}", self.path))
        path = hub.folder / self.path.removeprefix("/files/")
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        end = int(asked[2]) + 1 if asked and asked[2] else size
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{hub.sha256(path)}"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if self.command != "HEAD":
            with path.open("rb") as file, contextlib.suppress(ConnectionError):
                file.seek(start)
                shutil.copyfileobj(file, self.wfile, 1 << 20)

    do_GET = do_HEAD = _answer  # noqa: N815


@contextlib.contextmanager
def hub_server(folder: Path, home: Path) -> Iterator[HubServer]:
    """A running hub, which all clients of this process and its children ask; their cache is in `home`."""
    hub = HubServer(folder)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in (hub, hub.cdn)]
    for thread in threads:
        thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_"))]:
            patch.delenv(name)
        patch.setenv("HF_HOME", str(home))
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        # What huggingface_hub read from the environment when this process imported it.
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        try:
            yield hub
        finally:
            for server in (hub, hub.cdn):
                server.shutdown()
                server.server_close()
            for thread in threads:
                thread.join()
