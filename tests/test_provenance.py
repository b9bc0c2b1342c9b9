"""What a run stands on is recorded, and a resumed run refuses what has changed."""

import json
import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from jtcore import cli, provenance
from jtcore.provenance import backbone_identity, circumstances
from jtcore.recipe import build_recipe

CURE = "has changed since this run began; put it back, or begin a new run"


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def pictures(table, data, tmp_path) -> Path:
    """A subject of one's own, and its masks."""
    folder = Path(shutil.copytree(data / "subject", tmp_path / "pictures"))
    (tmp_path / "masks").mkdir()
    for picture in folder.glob("*.png"):
        with Image.open(picture) as opened:
            Image.new("L", opened.size, 255).save(tmp_path / "masks" / picture.name)
    table["data"]["subject"] |= {"source": str(folder), "masks": str(tmp_path / "masks")}
    return folder


@pytest.fixture
def recorded(table, plugins, write_recipe) -> Callable[[], dict]:
    """What is recorded of a run of the table."""
    return lambda: circumstances(write_recipe(table), [], build_recipe(table, plugins), plugins)


# Recorded


def test_pictures_captions_and_masks_are_recorded_by_their_bytes(
    recorded, table, pictures, tmp_path
):
    (first, *_) = sorted(pictures.glob("*.txt"))
    first.rename(first.with_suffix(".TXT"))  # a caption all the same
    table["validation"] = {"data": ["held_out"]}

    found = recorded()["data"]

    assert list(found) == ["subject", "motion", "held_out"]
    expected = [*pictures.iterdir(), *(tmp_path / "masks").iterdir()]
    assert found["subject"] == {str(path): digest(path) for path in expected}
    assert len(expected) == 6


def test_captions_that_a_prompt_overrules_and_unused_data_are_not_recorded(
    recorded, table, pictures
):
    table["data"]["subject"]["prompt"] = "a wug"
    table["data"]["spare"] = {"source": "nowhere", "size": [24, 24]}

    found = recorded()["data"]

    assert list(found) == ["subject", "motion"]
    assert not [path for path in found["subject"] if path.endswith(".txt")]


def test_files_of_one_name_in_two_folders_are_both_recorded(recorded, table, pictures, tmp_path):
    (first, *_) = sorted(pictures.glob("*.png"))
    for folder in ("a", "b"):
        (tmp_path / "two" / folder).mkdir(parents=True)
        shutil.copy(first, tmp_path / "two" / folder / "same.png")
    table["data"]["subject"] = {
        "source": str(tmp_path / "two/*/*.png"),
        "size": [24, 24],
        "prompt": "a wug",
    }

    assert list(recorded()["data"]["subject"]) == [
        str(tmp_path / "two/a/same.png"),
        str(tmp_path / "two/b/same.png"),
    ]


def test_the_identity_of_the_backbone_is_recorded(recorded, table, plugins):
    table["backbone"] = {"kind": "pocket", "weights": "random"}
    identity = backbone_identity(build_recipe(table, plugins).backbone)

    assert recorded()["backbone"] == identity
    assert identity.keys() == {"denoiser", "text", "codec"}
    table["backbone"]["seed"] = 1
    assert not identity.items() & recorded()["backbone"].items()


def test_the_hash_of_a_plugin_covers_what_neighbours_share_and_no_other_plugin(
    load_with, plugin_folder
):
    def hashed(**sources: str) -> str:
        return load_with(**sources).origins[str(plugin_folder() / "mine.py")].sha256

    began = hashed(mine="A = 1", other="B = 1", _shared="C = 1")

    assert hashed(other="B = 2") == began
    shared = hashed(_shared="C = 2")
    assert shared != began
    assert hashed(mine="A = 2", _shared="C = 1") not in (began, shared)


# The commit


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository with one tracked file."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "tracked").write_text("1")
    for command in ("init -q", "add tracked", "commit -q -m first"):
        git(folder, *command.split())
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_tracked_recipe_has_its_commit(repository, table, plugins):
    def commit() -> str | None:
        recipe = build_recipe(table, plugins)
        return circumstances(repository / "tracked", [], recipe, plugins)["git"]["recipe"]

    head = git(repository, "rev-parse", "HEAD")
    assert commit() == head
    (repository / "tracked").write_text("2")
    assert commit() == f"{head}-dirty"


def test_a_repository_around_an_installation_says_nothing_of_it(repository, recorded, monkeypatch):
    installed = repository / "venv/provenance.py"
    installed.parent.mkdir()
    installed.touch()
    monkeypatch.setattr(provenance, "__file__", str(installed))

    assert recorded()["git"] == {"recipe": None, "jtcore": None}


# Resumed


@pytest.fixture
def unfinished(jt_run, table) -> Callable[[], Path]:
    """A run of the table that is not done."""

    def make() -> Path:
        run = jt_run(table, "--quiet")
        for path in (run / "result.json", *run.glob("adapters/*")):
            path.unlink()
        return run

    return make


@pytest.fixture
def refusal(capsys) -> Callable[[Path], list[str]]:
    """What resuming a run says to refuse it, having written nothing."""

    def refused(run: Path) -> list[str]:
        before = contents(run)
        capsys.readouterr()
        assert cli.run(["--resume", str(run)]) == 2
        assert contents(run) == before
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()

    return refused


def contents(run: Path) -> dict[Path, tuple[int, bytes]]:
    """Of every file but the lock: when it was written, and what."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_run_whose_data_are_as_they_were_is_resumed(unfinished, pictures, capsys):
    assert cli.run(["--resume", str(unfinished()), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["pictures/00.png", "pictures/00.txt", "masks/00.png"])
def test_a_resumed_run_refuses_a_file_that_has_changed(
    unfinished, refusal, pictures, tmp_path, name
):
    run, file = unfinished(), tmp_path / name
    if file.suffix == ".txt":
        file.write_text("a ball")
    else:
        file.write_bytes(file.read_bytes() + b" ")  # decodes to the same picture

    assert refusal(run) == [f"data.subject: {file} {CURE}"]


def test_a_resumed_run_refuses_files_that_have_disappeared(unfinished, refusal, pictures):
    run = unfinished()
    gone = sorted(pictures.glob("00.*"))
    for file in gone:
        file.unlink()

    mask = pictures.parent / "masks/00.png"
    assert refusal(run) == [f"data.subject: {file} {CURE}" for file in (mask, *gone)]


def test_a_resumed_run_refuses_files_that_were_added(unfinished, refusal, pictures):
    run = unfinished()
    for old in (*pictures.glob("00.*"), pictures.parent / "masks/00.png"):
        shutil.copy(old, old.with_stem("07"))

    added = [pictures.parent / "masks/07.png", pictures / "07.png", pictures / "07.txt"]
    assert refusal(run) == [f"data.subject: {file} {CURE}" for file in added]


def test_a_resumed_run_refuses_what_a_metric_reads_if_it_has_changed(
    unfinished, refusal, table, data, tmp_path
):
    truth = Path(shutil.copy(data / "task.json", tmp_path))
    table["metric"] = {"leak": {"kind": "background_leak", "task": str(tmp_path)}}
    run = unfinished()
    truth.write_text(truth.read_text().replace('"seed": 0', '"seed": 1'))

    assert refusal(run) == [f"metric.leak: {truth} {CURE}"]


def test_a_resumed_run_refuses_another_backbone_and_tells_all_at_once(
    unfinished, refusal, pictures, table, plugin_folder, tmp_path
):
    identity = tmp_path / "identity"
    identity.write_text("1")
    folder = plugin_folder(
        dated=f"""
        from pathlib import Path
        from attrs import frozen
        from jtcore import hookimpl
        from jtcore.plugins import load_plugins

        Tiny = load_plugins([{table["plugins"]["folders"][0]!r}]).find("backbones", "tiny")

        @frozen
        class Dated(Tiny):
            def denoiser_identity(self):
                return Path({str(identity)!r}).read_text()

        @hookimpl
        def jt_backbones():
            return {{"dated": Dated}}
        """
    )
    table["backbone"] = {"kind": "dated"}
    table["plugins"]["folders"].append(str(folder))
    run = unfinished()
    assert json.loads((run / "run.json").read_text())["backbone"] == {
        "denoiser": "1",
        "text": "tiny",
        "codec": "tiny",
    }
    identity.write_text("2")
    (pictures / "00.txt").write_text("a ball")

    assert refusal(run) == [
        f"backbone: its denoiser {CURE}",
        f"data.subject: {pictures / '00.txt'} {CURE}",
    ]
