"""Grids on a real Slurm, which `cluster.py` starts on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from slurm.cluster import cluster, missing

from jtcore.grids.grid import run_folders
from jtcore.grids.state import read_failure, state_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or "there is Slurm"),
]
PATIENCE = 400  # s
HELD = 3  # the number of the fourth step of six, after which the second checkpoint is written
GATES = """
    import time
    from pathlib import Path
    from jtcore import hookimpl

    GATES = Path({gates!r})

    @hookimpl
    def jt_step_finished(run, step):
        if run.folder.name.startswith("broken") and step.number == 1:
            raise RuntimeError("no luck")
        gate = GATES / run.folder.name
        if step.number == {held} and gate.exists():
            gate.with_suffix(".held").touch()
            while gate.exists():
                time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Mapping[str, str]]:
    """The environment in which commands find a cluster."""
    with cluster(tmp_path_factory.mktemp("cluster")) as told:
        yield {**os.environ, **told, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def asked(slurm) -> Callable[..., str]:
    """The answer of a program of Slurm."""
    return lambda *command: (
        subprocess.run(command, env=slurm, check=True, stdout=subprocess.PIPE, text=True).stdout
    )


class Gates:
    """Runs that are held in the middle of their training."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()

    def close(self, *names: str) -> None:
        for name in names:
            (self.folder / name).touch()

    def open(self, name: str) -> None:
        (self.folder / name).unlink()
        (self.folder / f"{name}.held").unlink()

    def holds(self, name: str) -> bool:
        return (self.folder / f"{name}.held").exists()


@pytest.fixture
def gates(tmp_path) -> Gates:
    return Gates(tmp_path / "gates")


@pytest.fixture
def grid(table, plugin_folder, gates) -> dict:
    """Runs of six steps; on Slurm each has one core and ten minutes."""
    source = GATES.format(gates=str(gates.folder), held=HELD)
    table["plugins"]["folders"].append(str(plugin_folder(gates=source)))
    table["stage"]["joint"]["steps"] = 6
    table["checkpoint"] = {"every": 2}
    small = {"adapter": {"joint": {"rank": 1}}}
    launch = {"kind": "slurm", "hours": 1 / 6, "notice": 60, "gpus": 0, "cpus": 1, "poll": 0.5}
    return table | {"variant": {"large": {}, "small": small}, "launch": launch}


@pytest.fixture
def jt_grid(slurm, write_recipe, tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Begin a `jt-run` of a grid; what it prints goes to NAME.log."""
    begun = []

    def begin(grid: dict, name: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "jtcore.cli", "run", str(write_recipe(grid, name))]
        with (tmp_path / f"{name}.log").open("a") as log:
            begun.append(
                subprocess.Popen(
                    [*command, "--out", name, *options],
                    cwd=tmp_path,
                    env=slurm,
                    stdout=log,
                    stderr=log,
                )
            )
        return begun[-1]

    yield begin
    for each in begun:
        each.kill()
        each.wait()


@pytest.fixture
def printed(tmp_path) -> Callable[[str], str]:
    return lambda name: (tmp_path / f"{name}.log").read_text()


@pytest.fixture
def finish(jt_grid, printed) -> Callable[..., None]:
    def run(grid: dict, name: str, *options: str, status: int = 0) -> None:
        assert jt_grid(grid, name, *options).wait(PATIENCE) == status, printed(name)

    return run


def until(true: Callable[[], object], told: Callable[[], str] = lambda: "") -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


def number(grid: Path, run: str) -> str | None:
    """Of its job; None before it has one."""
    index = grid / "slurm/jobs.json"
    return json.loads(index.read_text())[run]["job"] if index.exists() else None


def log(grid: Path, run: str) -> str:
    path = grid / f"slurm/{number(grid, run)}_0_log.out"
    return path.read_text() if path.exists() else ""


def results(grid: Path, runs: Sequence[str]) -> dict[str, str]:
    """Digests of what runs are for."""
    patterns = ("adapters/*.safetensors", "samples/*/*.mp4", "metrics.json")
    found = [path for run in runs for each in patterns for path in (grid / run).glob(each)]
    return {str(p.relative_to(grid)): sha256(p.read_bytes()).hexdigest() for p in sorted(found)}


def test_requeued_killed_and_failing_jobs_end_as_on_this_machine(
    grid, gates, finish, jt_grid, printed, asked, tmp_path
):
    grid["variant"]["broken"] = {}
    grid["seeds"] = [0, 1]
    local, out = tmp_path / "local", tmp_path / "grid"
    finish(grid | {"launch": {"kind": "local"}}, "local", status=2)
    gates.close("large-seed0", "small-seed0")

    following = jt_grid(grid, "grid", "--follow")
    until(lambda: gates.holds("large-seed0") and gates.holds("small-seed0"))
    asked("scontrol", "requeue", number(out, "large-seed0"))
    until(lambda: "SIGTERM: ending at the next safe point" in log(out, "large-seed0"))
    gates.open("large-seed0")
    asked("scontrol", "requeue", number(out, "small-seed0"))  # and is held until it is killed
    until(lambda: "task 0: Killed" in log(out, "small-seed0"))
    gates.open("small-seed0")

    assert following.wait(PATIENCE) == 2, printed("grid")
    whole = ["large-seed0", "small-seed0", "large-seed1", "small-seed1"]
    assert [state_of(run) for run in run_folders(out)].count("finished") == 4
    assert results(out, whole) == results(local, whole) != {}
    assert {f"{run}/adapters/joint.safetensors" for run in whole} <= results(out, whole).keys()
    assert "continuing at step 4 of 6" in log(out, "large-seed0")
    assert "continuing at step 2 of 6" in log(out, "small-seed0")
    assert read_failure(out / "broken-seed1").problems == ("RuntimeError: no luck",)
    assert "RuntimeError: no luck" in log(out, "broken-seed1")
    assert (out / "broken-seed1/log.txt").read_text() == log(out, "broken-seed1")
    assert (out / "grid.md").read_text() == (local / "grid.md").read_text()
    said = printed("grid")
    assert f"large-seed0: job {number(out, 'large-seed0')} is pending again\n" in said
    assert "broken-seed0 failed: RuntimeError: no luck\n" in said


def test_a_job_at_its_time_limit_is_saved_and_goes_on(
    grid, gates, finish, jt_grid, printed, tmp_path
):
    local, out = tmp_path / "local", tmp_path / "grid"
    finish(grid | {"launch": {"kind": "local"}}, "local")
    grid["launch"] |= {"hours": 1 / 30, "notice": 10, "timeouts": 2}
    gates.close("large")

    following = jt_grid(grid, "grid", "--follow")
    until(lambda: "SIGUSR2: ending at the next safe point" in log(out, "large"))
    gates.open("large")

    assert following.wait(PATIENCE) == 0, printed("grid")
    assert results(out, ["large", "small"]) == results(local, ["large", "small"]) != {}
    assert "Requeued job" in log(out, "large")
    assert "continuing at step 4 of 6" in log(out, "large")


def test_a_job_that_has_had_all_its_time_says_so_and_is_continued_by_hand(
    grid, gates, finish, jt_grid, printed, tmp_path
):
    out = tmp_path / "grid"
    del grid["variant"]["small"]
    finish(grid | {"launch": {"kind": "local"}}, "local")
    grid["launch"] |= {"hours": 1 / 30, "notice": 10, "timeouts": 0}
    gates.close("large")

    following = jt_grid(grid, "grid", "--follow")
    until(lambda: "SIGUSR2: ending at the next safe point" in log(out, "large"))
    gates.open("large")
    assert following.wait(PATIENCE) == 2, printed("grid")
    told = "its job came to its time limit once more than launch.timeouts allows"
    assert told in printed("grid")

    finish(grid, "grid", "--follow")
    assert "continuing at step 4 of 6" in log(out, "large")
    assert results(out, ["large"]) == results(tmp_path / "local", ["large"]) != {}


def test_a_job_that_gives_way_to_an_urgent_one_goes_on_afterwards(
    grid, gates, finish, jt_grid, printed, asked, tmp_path
):
    local, out = tmp_path / "local", tmp_path / "grid"
    finish(grid | {"launch": {"kind": "local"}}, "local")
    gates.close("large", "small")

    following = jt_grid(grid, "grid", "--follow")
    until(lambda: gates.holds("large") and gates.holds("small"))
    urgent = ["--partition=urgent", "--exclusive", f"--chdir={tmp_path}", "--wrap=true"]
    asked("sbatch", *urgent)
    for name in ("large", "small"):
        until(lambda name=name: "SIGTERM: ending at the next safe point" in log(out, name))
        gates.open(name)

    assert following.wait(PATIENCE) == 0, printed("grid")
    assert results(out, ["large", "small"]) == results(local, ["large", "small"]) != {}
    for name in ("large", "small"):
        assert f"{name}: job {number(out, name)} is pending again\n" in printed("grid")
        assert "continuing at step 4 of 6" in log(out, name)


def test_jobs_go_on_without_the_one_who_submitted_them(
    grid, gates, finish, jt_grid, printed, asked, tmp_path
):
    out = tmp_path / "grid"
    gates.close("large", "small")
    finish(grid, "grid")
    array = number(out, "large").partition("_")[0]
    assert f"to end them: scancel {array}\n" in printed("grid")
    until(lambda: gates.holds("large") and gates.holds("small"))

    following = jt_grid(grid, "grid", "--follow")
    until(lambda: f"small: job {array}_1 is running" in printed("grid"))
    following.send_signal(signal.SIGINT)
    assert following.wait(PATIENCE) == 3
    assert "the jobs go on without this; to follow them again: jt-run --resume" in printed("grid")
    assert printed("grid").count("submitted as job") == 1

    asked("scancel", f"{array}_1")
    until(lambda: "SIGTERM: ending at the next safe point" in log(out, "small"))
    gates.open("small")
    gates.open("large")
    until(lambda: not asked("squeue", "--noheader", f"--jobs={array}"))
    assert (state_of(out / "large"), state_of(out / "small")) == ("finished", "interrupted")

    finish(grid, "grid")
    assert f"small: its job {array}_1 was cancelled" in printed("grid")
    until(lambda: (out / "grid.md").is_file() and state_of(out / "small") == "finished")
    until(lambda: "| small |" in (out / "grid.md").read_text())
    finish(grid | {"launch": {"kind": "local"}}, "local")
    assert results(out, ["large", "small"]) == results(tmp_path / "local", ["large", "small"]) != {}


def test_a_run_of_two_processes_is_requeued_as_one(grid, gates, jt_grid, printed, asked, tmp_path):
    out = tmp_path / "grid"
    grid["engine"] = {"kind": "ddp", "device": "cpu"}
    grid["launch"] |= {"gpus": 2}
    grid["variant"] = {"requeued": {}, "whole": {}}
    gates.close("requeued")

    following = jt_grid(grid, "grid", "--follow")
    until(lambda: gates.holds("requeued"))
    asked("scontrol", "requeue", number(out, "requeued"))
    until(lambda: "SIGTERM: ending at the next safe point" in log(out, "requeued"))
    gates.open("requeued")

    assert following.wait(PATIENCE) == 0, printed("grid")
    one, other = (list(results(out, [run]).values()) for run in ("requeued", "whole"))
    assert one == other != []
    assert "continuing at step 4 of 6" in log(out, "requeued")
    second = out / f"slurm/{number(out, 'whole')}_1_log.out"
    assert "global_rank=1(2)" in second.read_text()


def test_a_job_that_never_comes_to_its_run_is_told_with_its_last_words(
    grid, finish, printed, tmp_path
):
    out = tmp_path / "grid"
    del grid["variant"]["small"]
    grid["launch"]["setup"] = ["echo there is no such module", "exit 4"]
    finish(grid, "grid", "--follow", status=2)

    words = out / f"slurm/{number(out, 'large')}_0_log.out"
    told = f"its job {number(out, 'large')} ended as FAILED; its last words are in {words}"
    assert f"large failed: {told}\n" in printed("grid")
    assert read_failure(out / "large").problems == (told,)
    assert words.read_text() == "there is no such module\n"
