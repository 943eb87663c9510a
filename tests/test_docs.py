"""The README and docs/: what they link to, name and show is there."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from proxyclip import EvaluateOptions, LabelOptions, Vocabulary
from proxyclip.export.options import ExportOptions
from proxyclip.gallery.options import GalleryOptions, PreviewOptions
from proxyclip.pipeline.evaluate.options import BenchmarkOptions
from proxyclip.pipeline.relabel.options import RelabelOptions

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "BENCHMARKS.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "cluster" / "README.md",
]
REFERENCE = [
    ROOT / "docs" / f"{name}.md"
    for name in (
        "evaluation",
        "export",
        "gallery",
        "inputs",
        "output",
        "presets",
        "relabelling",
        "running",
        "speed",
        "storage",
        "vocabularies",
        "weights",
    )
]
KINDS = (LabelOptions, RelabelOptions, PreviewOptions, GalleryOptions, EvaluateOptions, BenchmarkOptions, ExportOptions)
OTHER_OPTIONS = {
    "repair",
    "older-than-h",
    "dry-run",
    "json",
    "watch",
    "device",
    "help",
    "images",
    "name",
    "repo-type",
    "local-dir",
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in (link for link in links if "://" not in link):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_are_there(page):
    paths = re.findall(r"`(?:python )?((?:proxyclip|jobs|tests|docs|cluster)/[\w./]+)", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", REFERENCE, ids=name)
def test_options_that_are_named_are_there(page):
    fields = {field.name for kind in KINDS for field in dataclasses.fields(kind)}
    known = {field.replace("_", "-") for field in fields} | OTHER_OPTIONS
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", page.read_text()))
    assert named - known == set()


def test_the_vocabularies_that_are_shown_can_be_read():
    page = (ROOT / "docs" / "vocabularies.md").read_text()
    (text,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    (data,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert Vocabulary.from_text(text).class_queries == (("sky",), ("horse", "pony", "foal"), ("grass",))
    vocabulary = Vocabulary.from_json(json.loads(data))
    assert vocabulary.class_queries == (("sky",), ("horse", "pony", "foal"), ("lawn", "meadow"))
    assert (vocabulary.background, tuple(vocabulary.colours[1])) == (0, (200, 120, 40))
