"""A wheel of this checkout, installed into an empty environment, labels a folder with nothing from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from labelling import draw

from proxyclip.dataset.upkeep.verify import verify
from proxyclip.storage.store import Storage

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv*", "node_modules", "*.egg-info", "build", "demo-output", "__pycache__", ".*_cache")
)


@pytest.fixture
def installed(tmp_path):
    """The Python of an environment that has the wheel, and the other packages of this environment but not proxyclip."""
    shutil.copytree(ROOT, tmp_path / "checkout", ignore=LEFT_OUT)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, tmp_path / "checkout"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.rmtree(tmp_path / "checkout")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_an_installed_wheel_labels_a_folder(installed, tmp_path):
    draw(tmp_path / "photos", 4)
    (tmp_path / "five.txt").write_text("sky\ngrass\ntree\nwater\nstone")
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    where = subprocess.check_output(
        [installed, "-c", "import proxyclip; print(proxyclip.__file__)"], text=True, env=env, cwd=tmp_path
    )
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    command = [installed.with_name("proxyclip"), "label", "--preset", "demo", "--input", "photos", "--output", "labels"]
    run = subprocess.run(
        [*command, "--vocabulary", "five.txt"], capture_output=True, text=True, env=env, cwd=tmp_path, timeout=600
    )
    assert run.returncode == 0, run.stderr
    assert "4 of 4 images labelled, 0 failed" in run.stdout
    report = verify(Storage(str(tmp_path / "labels")))
    assert (report.images, report.problems, report.unfinished) == (4, [], [])
    gallery = [installed.with_name("proxyclip"), "gallery", "labels"]
    run = subprocess.run(gallery, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=600)
    assert run.returncode == 0, run.stderr
    pages = tmp_path / "labels" / "gallery"
    asked = re.findall(r'(?:src|href)="((?:assets|data)/[^"]+)"', (pages / "index.html").read_text())
    assert len(asked) > 10
    assert [path for path in asked if not (pages / path).exists()] == []
