"""Teachers as data: their settings, weights and packages, and the methods that packages register."""

from __future__ import annotations

import socket
from importlib.metadata import EntryPoint

import pytest

from proxyclip.config import TeacherModel
from proxyclip.recipes import teachers
from proxyclip.recipes.licences import forbids_commercial_use
from proxyclip.recipes.teachers import (
    TEACHERS,
    TeacherMethod,
    check_teacher_hashes,
    package_versions_of,
    plugin_methods,
    teacher_files,
    teacher_hashes,
    teacher_named,
    teacher_settings,
)
from proxyclip.recipes.weights import WeightsDiffer

OWN = TeacherMethod(
    load="nowhere:load", licence="CC-BY-NC-4.0", settings={"scale": 2.0, "steps": 3, "soft": True, "note": None}
)


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setitem(TEACHERS, "own", OWN)


@pytest.fixture
def registered(monkeypatch):
    """Registers entry points, as installed packages do."""

    def register(**values):
        entries = [EntryPoint(name, value, teachers.GROUP) for name, value in values.items()]
        monkeypatch.setattr(teachers, "entry_points", lambda group: entries)
        return entries

    return register


@pytest.fixture
def folder(tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_settings_replace_defaults(own, tmp_path):
    assert teacher_settings("own", None) == dict(OWN.settings)
    changed = {"scale": 3.0, "steps": 3, "soft": False, "note": [1]}
    given = '{"scale": 3, "soft": false, "note": [1]}'
    assert teacher_settings("own", given) == changed
    (tmp_path / "own.json").write_text(given)
    assert teacher_settings("own", str(tmp_path / "own.json")) == changed
    assert type(teacher_settings("own", given)["scale"]) is float, "so that 3 and 3.0 have one fingerprint"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('{"scael": 3}', r"Unknown setting 'scael'. Did you mean 'scale'\?"),
        ('{"steps": 1.5}', "steps is 1.5; it must be like its default, 3"),
        ('{"soft": 1}', "soft is 1"),
        ('{"scale": NaN}', "NaN is no number of JSON"),
        ("{scale: 3}", "not valid JSON"),
    ],
)
def test_settings_that_make_no_sense_are_refused(own, given, told):
    with pytest.raises(ValueError, match=told):
        teacher_settings("own", given)


def test_a_file_of_settings_must_exist_and_hold_an_object(own, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        teacher_settings("own", str(tmp_path / "gone.json"))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="JSON object"):
        teacher_settings("own", str(tmp_path / "list.json"))


def test_sam3_takes_a_folder_of_transformers(folder):
    model = TeacherModel("sam3", {}, str(folder))
    assert list(teacher_files(model)) == ["config.json", "model.safetensors", "tokenizer.json"]
    with pytest.raises(FileNotFoundError, match=r"--method-weights FOLDER.*licence"):
        teacher_files(TeacherModel("sam3", {}))
    (folder / "model.safetensors").rename(folder / "sam3.pt")
    with pytest.raises(FileNotFoundError, match=r"sam3\.pt has another layout"):
        teacher_files(model)


def test_every_file_of_the_weights_is_checked_and_named(folder):
    model = TeacherModel("sam3", {}, str(folder))
    hashes = teacher_hashes(model)
    check_teacher_hashes(model, hashes)
    (folder / "tokenizer.json").write_text("another")
    with pytest.raises(WeightsDiffer, match=rf"{socket.gethostname()}.*tokenizer.json.*{hashes['tokenizer.json']}"):
        check_teacher_hashes(model, hashes)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(WeightsDiffer, match=r"tokenizer.json has sha256 nothing"):
        check_teacher_hashes(model, hashes)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"On machine {socket.gethostname()}"):
        check_teacher_hashes(model, hashes)


def test_a_machine_without_the_plug_in_is_named():
    with pytest.raises(ValueError, match=f"On machine {socket.gethostname()}: Unknown method 'elsewhere'"):
        check_teacher_hashes(TeacherModel("elsewhere", {}), {})


def test_a_method_without_weights_takes_none(own):
    assert teacher_hashes(TeacherModel("own", {})) == {}
    with pytest.raises(ValueError, match="leave out --method-weights"):
        teacher_hashes(TeacherModel("own", {}, "somewhere"))


def test_what_a_method_needs_is_recorded_or_missed_with_what_to_do(own, monkeypatch):
    assert package_versions_of("sam3").keys() == {"transformers"}
    assert package_versions_of("own") == {}
    for needs, found in (("transformers>=1000", r"transformers [\d.]+ is installed"), ("no-such-thing", "not inst")):
        monkeypatch.setitem(TEACHERS, "own", TeacherMethod(load="", licence="", requires=(needs,), install="do this"))
        with pytest.raises(ValueError, match=f"needs {needs}, and .*{found}.*: do this"):
            package_versions_of("own")


def test_methods_of_packages_are_found_by_name(registered):
    entry, _, _ = registered(other="recipes.test_teacher_methods:OWN", maskclip="x:y", sam3="x:y")
    assert plugin_methods() == {"other": entry}, "names that are built in stay as they are"
    with pytest.raises(ValueError, match=r"Unknown method 'othre'. Did you mean 'other'\?.*maskclip.*sam3, other"):
        teacher_named("othre")


def test_packages_that_are_broken_are_named(registered):
    registered(gone="no.such.module:METHOD", wrong="json:dumps")
    with pytest.raises(
        ValueError, match=r"'gone' cannot be imported from no\.such\.module:METHOD: ModuleNotFoundError"
    ):
        teacher_named("gone")
    with pytest.raises(ValueError, match="json:dumps is a function, not a TeacherMethod"):
        teacher_named("wrong")


def test_two_packages_with_one_name_are_refused(registered, monkeypatch):
    entries = registered(one="a:METHOD") + registered(one="b:METHOD")
    monkeypatch.setattr(teachers, "entry_points", lambda group: entries)
    with pytest.raises(ValueError, match="Two packages register method 'one': a:METHOD and b:METHOD"):
        plugin_methods()


def test_the_licence_of_sam3_is_no_licence_against_commerce():
    assert "SAM-License" in TEACHERS["sam3"].licence
    assert not forbids_commercial_use(TEACHERS["sam3"].licence)


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("name", ["", "/student.safetensors"])
def test_a_student_is_found_by_its_folder_or_its_file_here_or_in_a_store(tmp_path, monkeypatch, scheme, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "student.safetensors").write_bytes(b"weights")
    files = teacher_files(TeacherModel("student", {}, weights=f"{scheme}{tmp_path}/run{name}"))
    assert files["student"].read_bytes() == b"weights"
    with pytest.raises(FileNotFoundError, match=r"there is no student\.safetensors"):
        teacher_files(TeacherModel("student", {}, weights=f"{scheme}{tmp_path}/nowhere"))


def test_a_trained_cliprc_may_lie_in_a_store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cliprc.safetensors").write_bytes(b"weights")
    files = teacher_files(TeacherModel("cliprc", {}, weights=f"file://{tmp_path}/cliprc.safetensors"))
    assert files["checkpoint"].read_bytes() == b"weights"
