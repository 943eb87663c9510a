"""The walls between rooms: who may import whom, held over the syntax tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "proxyclip"
FOUNDATION = {
    "config",
    "vocabulary",
    "vocabulary_checks",
    "vocabulary_files",
    "templates",
    "image",
    "picture",
    "vfms",
    "licences",
    "benchmarks",
    "quality",
}
ALLOWED = {
    "models": FOUNDATION | {"models", "presets"},
    "dataset": FOUNDATION | {"dataset"},
    "evaluation": FOUNDATION | {"evaluation"},
    "speed": FOUNDATION | {"models", "demo", "speed"},
    "pipeline": FOUNDATION | {"models", "dataset", "evaluation", "presets", "pipeline"},
}
FORBIDDEN = {"models": {"ray", "fsspec"}, "dataset": {"ray", "torch"}, "evaluation": {"ray", "torch"}}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def _files():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE / "demo"]


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_may(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    imports = _imports(path)
    ours = {name.split(".")[1] for name in imports if name.startswith("proxyclip.")}
    others = {name.split(".")[0] for name in imports}
    if room in ALLOWED:
        assert ours <= ALLOWED[room]
    if room in FOUNDATION:
        assert ours <= FOUNDATION
        assert not others & {"ray", "torch", "fsspec", "open_clip", "timm"}
    assert not others & FORBIDDEN.get(room, set())
    if room != "pipeline":
        assert "ray" not in others


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 320


@pytest.mark.parametrize(
    "module",
    ["proxyclip", "proxyclip.presets", "proxyclip.dataset.shards", "proxyclip.dataset.manifest", "proxyclip.cli"],
)
def test_readers_and_writers_load_neither_torch_nor_ray(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'ray') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
