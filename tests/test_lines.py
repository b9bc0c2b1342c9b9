"""Prompts may be the path of a text file; a run holds the prompts themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

from jtcore import JtError
from jtcore.lines import read_lines
from jtcore.recipe import build_recipe, recipe_table

COMMAND = Path(sys.executable).parent / "jt-run"
TEXT = "\ufeff# of the subject\n\n  a wug moves  \r\na dax stays\n#a zot\n\t\n"


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_blank_lines_and_comments_are_skipped(file):
    assert read_lines(str(file)) == ["a wug moves", "a dax stays"]


def test_a_resolved_recipe_holds_the_prompts_of_the_file(table, plugins, file):
    table["sample"]["prompts"] = str(file)
    resolved = recipe_table(build_recipe(table, plugins))

    assert resolved["sample"]["prompts"] == ["a wug moves", "a dax stays"]


def bytes_of(text: bytes | None, tmp_path: Path) -> str:
    path = tmp_path / "given.txt"
    if text is not None:
        path.write_bytes(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "no file {!r}; give a text file with one a line, or a list"),
        (b"", "{!r} holds none; write one a line"),
        (b"\n# a wug\n", "{!r} holds none; write one a line"),
        (b"a \xff wug", "{!r} is not UTF-8 text; give a text file with one a line"),
    ],
)
def test_a_file_without_prompts_is_told_with_its_place(table, plugins, tmp_path, text, problem):
    table["sample"]["prompts"] = path = bytes_of(text, tmp_path)
    table["seed"] = -1

    with pytest.raises(JtError) as caught:
        build_recipe(table, plugins)

    assert caught.value.problems == (
        f"sample.prompts: {problem.format(path)}",
        "seed: must be >= 0: -1",
    )


@pytest.mark.parametrize("path", ["", "a wug moves", ".", "x" * 5000, "a\0b"])
def test_what_is_no_file_is_told(path):
    with pytest.raises(JtError) as caught:
        read_lines(path)

    assert str(caught.value) == f"no file {path!r}; give a text file with one a line, or a list"


def test_the_command_samples_every_prompt_and_resumes_without_the_file(
    table, write_recipe, file, tmp_path
):
    table["stage"]["joint"]["steps"] = 2
    recipe = write_recipe(table)

    def jt_run(*arguments: str | Path) -> None:
        done = subprocess.run([COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    jt_run(recipe, "--set", "sample.prompts=prompts.txt", "--out", "run")
    run = tmp_path / "run"
    videos = {path: path.read_bytes() for path in run.glob("samples/adapted/*.mp4")}
    assert sorted(path.name for path in videos) == ["00-seed0.mp4", "01-seed0.mp4"]
    assert "- adapted, seed 0: [a dax stays]" in (run / "report.md").read_text()

    file.unlink()
    for path in (run / "result.json", run / "metrics.json", *videos):
        path.unlink()
    jt_run("--resume", "run")
    assert {path: path.read_bytes() for path in videos} == videos
