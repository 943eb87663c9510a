"""Inputs that are data sets of Hugging Face's hub, from a hub that the test serves on loopback."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxyclip.images.inputs.images import fetch_image, open_images
from proxyclip.images.listing import list_images
from proxyclip.storage import remote
from proxyclip.storage.store import Storage

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "painter/drawn-scenes"


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub that lists and serves the files of one data set: {path: content}."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes] = {}  # noqa: RUF012

    def do_GET(self):
        path, api = unquote(urlsplit(self.path).path), f"/api/datasets/{REPO}"
        if re.fullmatch(f"{api}(/revision/main)?", path):
            self._json({"id": REPO, "sha": COMMIT, "siblings": []})
        elif path.startswith(f"{api}/tree/"):
            below = path.removeprefix(f"{api}/tree/").partition("/")[2]
            self._tree(below and f"{below}/", "recursive=true" in urlsplit(self.path).query.lower())
        elif path.startswith(f"/datasets/{REPO}/resolve/main/"):
            self._content(self.files.get(path.removeprefix(f"/datasets/{REPO}/resolve/main/")))
        else:
            self._content(None)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self._json([self._entry(name) for name in asked if name in self.files])

    def _tree(self, below, recursive):
        """All files and folders below a folder, or its own."""
        names = [name for name in self.files if name.startswith(below)]
        folders = {str(folder) for name in names for folder in PurePosixPath(name).parents if str(folder) > below}
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in sorted(folders)]
        entries += [self._entry(name) for name in names]
        self._json([each for each in entries if recursive or "/" not in each["path"].removeprefix(below)])

    def _entry(self, name):
        content = self.files[name]
        return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _content(self, content):
        if content is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            self._send(206, content[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(content)}"})
        else:
            self._send(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    """The files of the data set `REPO`."""
    handler = type("OneHub", (Hub,), {"files": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    remote.remote.cache_clear()
    yield handler.files
    remote.remote.cache_clear()
    server.shutdown()
    thread.join()
    server.server_close()


def image(number):
    return f"image {number} ".encode() * 100


def fetched(address):
    refs = list(list_images(address))
    with ThreadPoolExecutor(4) as pool:
        return dict(zip((ref.uri for ref in refs), open_images(address).fetch(pool, refs), strict=True))


def test_a_data_set_of_parquet_files_is_read(hub):
    for part in range(2):
        rows = [{"bytes": image(10 * part + row), "path": f"{row}.jpg"} for row in range(5)]
        pq.write_table(pa.table({"image": rows, "label": range(5)}), buffer := io.BytesIO(), row_group_size=2)
        hub[f"data/train-{part:05d}-of-00002.parquet"] = buffer.getvalue()
    hub["README.md"] = b"a data set"
    hub[".gitattributes"] = b""
    found = fetched(f"hf://datasets/{REPO}")
    assert found == {
        f"data/train-{part:05d}-of-00002.parquet#{row:08d}": image(10 * part + row)
        for part in range(2)
        for row in range(5)
    }
    assert fetched(f"hf://datasets/{REPO}/data/train-00001-*.parquet") == {
        f"train-00001-of-00002.parquet#{row:08d}": image(10 + row) for row in range(5)
    }


def test_a_data_set_of_files_is_read_and_a_file_that_changes_has_another_etag(hub):
    hub["train/cat/a b.jpg"] = image(1)
    hub["train/metadata.csv"] = b"file_name,label\ncat/a b.jpg,0\n"
    address = f"hf://datasets/{REPO}/train"
    (before,) = list_images(address)
    assert (before.uri, before.size_bytes) == ("cat/a b.jpg", len(image(1)))
    assert fetched(address) == {"cat/a b.jpg": image(1)}
    assert fetched(f"{address}/metadata.csv") == {"cat/a b.jpg": image(1)}
    hub["train/cat/a b.jpg"] = image(2)
    (after,) = list_images(address)
    assert after.etag != before.etag


def test_a_table_may_name_files_of_the_hub(hub, tmp_path):
    hub["a.jpg"] = image(1)
    uri = f"hf://datasets/{REPO}/a.jpg"
    Storage(str(tmp_path)).write("t.txt", uri.encode())
    assert fetch_image(open_images(f"{tmp_path}/t.txt"), uri) == image(1)


def test_a_data_set_that_is_not_there_is_refused(hub):
    with pytest.raises((FileNotFoundError, OSError), match="nobody/nothing"):
        list_images("hf://datasets/nobody/nothing")
