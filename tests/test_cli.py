"""The console command: one door to every verb, with clear errors."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxyclip.cli import run_command


def run(*words):
    return subprocess.run([sys.executable, "-m", "proxyclip", *words], capture_output=True, text=True, timeout=600)


def test_presets_are_listed_with_cost_licences_and_published_figures():
    found = run("presets", "b16-mae")
    assert found.returncode == 0, found.stderr
    head, row = found.stdout.splitlines()
    assert "VOC21" in head
    assert row.startswith("proxyclip-b16-mae-b16")
    assert "proxy CC-BY-NC-4.0 (not for commercial use)" in row
    (clearclip,) = run("presets", "clearclip-b16").stdout.splitlines()[1:]
    assert clearclip.split()[1:4] == ["300", "51.8", "32.6"]
    assert run("presets", "sam3").stdout.splitlines()[1].startswith("sam3     SAM-License (Meta, 2025-11-19")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("presets", "b15"), "No preset has 'b15' in its name"),
        (("verify", "nowhere"), "there is no run.json"),
        (("preview", "nowhere"), "there is no run.json"),
        (("export", "nowhere", "--to", "png", "there"), "there is no run.json"),
        (("label", "--input", "nowhere", "--output", "out", "--vocabulary", "voc22"), "Did you mean voc21"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(words, message):
    found = run(*words)
    assert found.returncode == 2
    assert found.stderr.startswith("error: ")
    assert message in found.stderr


def test_a_missing_library_is_said_in_one_line(capsys):
    def command():
        raise ImportError("This format needs pycocotools: pip install 'proxyclip[coco]'")

    assert run_command(command) == 2
    assert capsys.readouterr().err == "error: This format needs pycocotools: pip install 'proxyclip[coco]'\n"
