"""The walls between rooms: which room may import which, held over the syntax tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "proxyclip"

# Each room may import itself and the rooms named here; imports run one way, from the bottom of this list to its top.
ROOMS = {
    "config": set(),
    "storage": set(),
    "vocabulary": set(),
    "recipes": {"config", "vocabulary", "storage"},
    "images": {"config", "storage"},
    "models": {"config", "vocabulary", "recipes", "images"},
    "dataset": {"config", "vocabulary", "storage", "images"},
    "evaluation": {"vocabulary", "storage", "images", "dataset"},
    "gallery": {"vocabulary", "storage", "images", "dataset", "evaluation"},
    "export": {"vocabulary", "storage", "images", "dataset"},
    "training": {"config", "vocabulary", "recipes", "storage", "images", "models", "dataset", "evaluation"},
    "demo": {"config", "vocabulary", "images", "models", "evaluation"},
    "pipeline": {"config", "storage", "vocabulary", "recipes", "images", "models", "dataset"}
    | {"evaluation", "gallery", "export", "training"},
    "commands": {"config", "storage", "vocabulary", "recipes", "models", "dataset"}
    | {"evaluation", "gallery", "export", "training", "pipeline"},
}
ENTRANCE = {"__init__", "__main__", "cli"}
MODELS_ONLY = {"torch", "open_clip", "timm", "torchvision", "segment_anything", "transformers"}


def _imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    found = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


FILES = [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize("path", FILES)
def test_a_room_imports_only_the_rooms_below_it(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    imports = _imports(path)
    ours = {name.split(".")[1] for name in imports if name.startswith("proxyclip.")} & ROOMS.keys()
    others = {name.split(".")[0] for name in imports}
    assert room in ENTRANCE or ours <= ROOMS[room] | {room}
    assert "ray" not in others or room in {"pipeline", "training"}
    if room == "recipes":  # may ask these libraries about names that its tables lack, but does not load them by itself
        others = {name.split(".")[0] for name in _imports(path, top_level_only=True)}
    assert not others & MODELS_ONLY or room in {"models", "pipeline", "demo", "training"}
    assert not others & {"fsspec", "s3fs"} or room == "storage"
    assert "tyro" not in others or room in {
        "cli",
        "commands",
        "pipeline",
        "gallery",
        "evaluation",
        "export",
        "training",
    }
    assert "psutil" not in others, "what only measures belongs to jobs/performance"


def test_the_order_of_rooms_has_no_circle():
    seen: set[str] = set()
    for room, below in ROOMS.items():
        assert below <= seen, f"{room} imports a room that comes after it"
        seen.add(room)
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert folders | modules == ROOMS.keys() | ENTRANCE


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 300


def test_a_folder_holds_at_most_a_dozen_files_and_asks_one_question():
    for folder in {path.values[0].parent for path in FILES}:
        assert len(list(folder.glob("*.py"))) <= 12, folder
        question = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert question, folder
        assert "?" in question or folder == PACKAGE, folder


@pytest.mark.parametrize(
    "module",
    [
        "proxyclip",
        "proxyclip.cli",
        "proxyclip.recipes.presets",
        "proxyclip.dataset.shards",
        "proxyclip.dataset.manifest",
        "proxyclip.pipeline.opening",
        "proxyclip.pipeline.relabel.opening",
        "proxyclip.pipeline.reprocess.run",
        "proxyclip.pipeline.evaluate.run",
        "proxyclip.pipeline.evaluate.benchmark",
        "proxyclip.pipeline.export.run",
        "proxyclip.pipeline.train_student.run",
        "proxyclip.training.cliprc.opening",
        "proxyclip.training.cliprc.run",
    ],
)
def test_what_runs_before_work_starts_loads_neither_torch_nor_ray(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'ray') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("module", ["proxyclip.pipeline.runner", "proxyclip.pipeline.relabel.runner"])
def test_a_driver_loads_no_torch(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'ray') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "['ray']"
