"""Runs in processes of their own: what happens to one leaves the others be, and nothing is lost."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jtcore import cli
from jtcore.grids.grid import run_folders
from jtcore.grids.state import read_failure, state_of

ADAPTER = "adapters/joint.safetensors"
COMMAND = "import sys; from jtcore.cli import run; sys.exit(run(sys.argv[1:]))"


@pytest.fixture
def incidents(plugin_folder, grid) -> Path:
    """The folder in which a file RUN says what is to happen to that run."""
    folder = plugin_folder()
    shutil.copy(Path(__file__).parent / "incidents.py", folder)
    grid["plugins"] = {"folders": [*grid["plugins"]["folders"], str(folder)]}
    grid["checkpoint"] = {"every": 1}
    return folder


@pytest.fixture
def small(grid) -> dict:
    """Four runs, two at once."""
    return grid | {"seeds": [0], "launch": {"kind": "local", "jobs": 2, "threads": 1}}


def results(folder: Path) -> dict[str, bytes]:
    return {run.name: (run / ADAPTER).read_bytes() for run in run_folders(folder)}


def states(folder: Path) -> dict[str, str]:
    return {run.name: state_of(run) for run in run_folders(folder)}


def ends(folder: Path) -> dict[str, int]:
    """When runs have ended."""
    found = {run.name: run / "result.json" for run in run_folders(folder)}
    return {name: path.stat().st_mtime_ns for name, path in found.items() if path.is_file()}


NAMES = ["full-rank1-seed0", "no_ait-rank1-seed0", "full-rank2-seed0", "no_ait-rank2-seed0"]


def test_what_happens_to_a_run_leaves_the_others_be(
    incidents, grid, small, write_recipe, jt_run, tmp_path, capsys
):
    small["axes"] = {"adapter.joint.rank": [1, 2, 3]}
    small["variant"]["no_ait"]["stage"]["joint"]["branch"]["joint"]["weights"] = 3
    named = [f"full-rank{rank}-seed0" for rank in (1, 2, 3)]
    for name, what in zip(named, ("die", "full", "raise"), strict=True):
        (incidents / name).write_text(what)
    recipe, out = write_recipe(small), tmp_path / "out"

    assert cli.run([str(recipe), "--out", str(out)]) == 2

    said = capsys.readouterr()
    wrong = "stage.joint.branch.joint.weights: unknown key"
    assert said.err.startswith(f"no_ait-rank1: {wrong}")
    killed, full, error = (read_failure(out / name) for name in named)
    assert killed.kind == "killed" and "was killed by SIGKILL" in killed.problems[0]
    assert full.kind == "error" and "File too large" in full.problems[0]
    assert (error.kind, error.problems) == ("error", ("ZeroDivisionError: by a plugin",))
    assert "ZeroDivisionError" in (out / named[2] / "log.txt").read_text()
    assert wrong in read_failure(out / "no_ait-rank2-seed0").problems[0]
    assert "0 of 6 runs are finished" in said.err

    del small["variant"]["no_ait"]["stage"]["joint"]["branch"]["joint"]["weights"]
    write_recipe(small)
    assert cli.run([str(recipe), "--out", str(out)]) == 0

    said = capsys.readouterr().out
    assert "  full-rank3-seed0: failed before: ZeroDivisionError: by a plugin\n" in said
    assert "  no_ait-rank1-seed0: its recipe is mended\n" in said
    assert set(states(out).values()) == {"finished"}
    assert not list(out.glob("*/failure.json"))
    here = jt_run(small | {"launch": {"kind": "here"}}, name="here")
    assert results(out) == results(here)


def started(recipe: Path, out: Path, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", COMMAND, str(recipe), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_launcher_that_is_stopped_loses_nothing_and_nothing_is_done_twice(
    by, incidents, small, write_recipe, jt_run, tmp_path, capsys
):
    recipe, out, waiting = write_recipe(small), tmp_path / "out", NAMES[1:3]
    for name in waiting:  # the last runs of both workers that are begun
        (incidents / name).write_text("wait")
    os.mkfifo(incidents / "reached")
    launcher = started(recipe, out)
    with os.fdopen(os.open(incidents / "reached", os.O_RDWR)) as reached:  # does not end
        assert {reached.readline().strip() for _ in waiting} == {*waiting}

    launcher.send_signal(by)
    for name in waiting:
        while "SIGTERM" not in (out / name / "log.txt").read_text():
            os.sched_yield()  # it is asked to end
    (incidents / "go").touch()
    said = launcher.communicate()[0].decode()
    before = ends(out)
    assert list(before) == [NAMES[0]]
    if by == signal.SIGINT:
        assert launcher.returncode == 3
        assert [states(out)[name] for name in waiting] == ["interrupted"] * 2
        assert f"stopped; continue with: jt-run --resume {out}" in said

    assert cli.run([str(recipe), "--out", str(out)]) == 0
    assert set(states(out).values()) == {"finished"}
    assert ends(out)[NAMES[0]] == before[NAMES[0]]
    for name in waiting:
        assert "continuing at step 2 of 3" in (out / name / "log.txt").read_text()
    assert results(out) == results(jt_run(small | {"launch": {"kind": "here"}}, name="here"))


def test_cores_are_shared_out():
    from jtplugins.launchers.local import shared_out

    assert shared_out([0, 1, 2, 3, 4], 2) == [(0, 2, 4), (1, 3)]
    assert shared_out([4, 6], 3) == [(4,), (6,), (4,)]


def test_gpus_are_those_that_are_visible(monkeypatch):
    from jtplugins.launchers.local import Local, visible_gpus

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,GPU-7")
    assert visible_gpus() == ["2", "5", "GPU-7"]
    slots = Local()._slots()
    assert [slot.gpu for slot in slots] == ["2", "5", "GPU-7"]
    assert slots[2].environment["CUDA_VISIBLE_DEVICES"] == "GPU-7"
    assert [slot.gpu for slot in Local(jobs=4)._slots()] == ["2", "5", "GPU-7", "2"]


@pytest.mark.parametrize(
    ("launch", "told"),
    [
        ({"kind": "locall"}, "launch.kind: unknown launcher 'locall'; did you mean 'local'?"),
        ({"jobs": -1}, "launch.jobs: must be >= 0: -1"),
        ({"kind": "here", "jobs": 2}, "launch.jobs: unknown key"),
    ],
)
def test_what_is_no_launcher_is_told(launch, told, small, write_recipe, capsys):
    for options in ("--check",), ("--dry-run",), ():
        assert cli.run([str(write_recipe(small | {"launch": launch})), *options]) == 2
        assert capsys.readouterr().err == f"{told}\n"
