"""However a run ends, resuming it ends in the same bytes."""

import os
import random
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from select import select
from time import monotonic

import pytest

from jtcore import cli
from jtcore.options import INTERRUPTED
from jtcore.run import locked

SCRIPT = Path(__file__).parent / "processes/jt_run.py"
PRELOADED = [  # what a run imports
    "jtcore.launch",
    "torch.utils.tensorboard",
    "diffusers.models.transformers.transformer_cogvideox",
    "diffusers.schedulers.scheduling_ddim_cogvideox",
    "transformers.models.t5.modeling_t5",
]
SAME = ("adapters/*.safetensors", "samples/*/*.mp4", "metrics.json")


@pytest.fixture(scope="module")
def processes():
    """Where processes are forked from."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@pytest.fixture
def begin(processes, tmp_path) -> Iterator[Callable[..., BaseProcess]]:
    """Begin a `jt-run` in `tmp_path`."""
    begun = []

    def process(*arguments: str | Path) -> BaseProcess:
        given = {
            "arguments": [str(argument) for argument in arguments],
            "directory": str(tmp_path),
            "log": str(tmp_path / "log"),
        }
        begun.append(processes.Process(target=runpy.run_path, args=(str(SCRIPT), given)))
        begun[-1].start()
        return begun[-1]

    yield process
    for each in begun:
        each.kill()
        each.join()


@pytest.fixture
def finish(begin, tmp_path) -> Callable[..., None]:
    """Run a `jt-run` to its end."""

    def run(*arguments: str | Path) -> None:
        process = begin(*arguments)
        process.join(120)
        assert process.exitcode == 0, (tmp_path / "log").read_text()

    return run


def results(run: Path) -> dict[str, str]:
    """Digests of what a run is for, by file."""
    found = [path for pattern in SAME for path in run.glob(pattern)]
    return {str(p.relative_to(run)): sha256(p.read_bytes()).hexdigest() for p in sorted(found)}


@pytest.fixture
def pocket(data) -> dict:
    """JointTuner on pocket's architecture: 6 steps in two stages, a checkpoint every other step."""
    branch = {
        "data": ["subject", "motion"],
        "adapters": ["joint"],
        "losses": {
            "appearance": {"kind": "diffusion", "on": "image"},
            "motion": {"kind": "ait", "on": "video"},
        },
    }
    stage = {"lr": 0.01, "branch": {"joint": branch}}
    return {
        "seed": 11,
        "backbone": {"kind": "pocket", "weights": "random"},
        "data": {
            "subject": {"source": str(data / "subject"), "size": [24, 24]},
            "motion": {"source": str(data / "motion"), "size": [24, 24], "frames": 2},
            "held_out": {"source": str(data / "held_out" / "subject"), "size": [24, 24]},
        },
        "adapter": {"joint": {"kind": "glora", "targets": "visual", "rank": 2}},
        "stage": {"first": {"steps": 4, "ema": 0.5, **stage}, "second": {"steps": 5, **stage}},
        "checkpoint": {"every": 2},
        "sample": {
            "prompts": ["a sks creature moves"],
            "frames": 2,
            "size": [24, 24],
            "steps": 2,
            "seeds": [0, 1],
        },
        "metric": {"consistency": {"kind": "temporal_consistency"}},
        "validation": {"data": ["held_out"], "draws": 2},
    }


# Killed at any moment


def kill_and_resume(begin, finish, recipe: Path, out: Path, moment: float) -> Path:
    """Kill a run that long after its beginning, and bring it to its end."""
    process = begin(recipe, "--out", out)
    process.join(moment)
    process.kill()
    process.join()
    if out.exists():
        finish("--resume", out)
    else:
        finish(recipe, "--out", out)
    return out


def killed_runs_are_alike(begin, finish, recipe: Path, folder: Path, moments: int) -> None:
    finish(recipe, "--out", folder / "warm")  # fills the cache
    began = monotonic()
    finish(recipe, "--out", folder / "whole")
    lasted = monotonic() - began
    rng = random.Random(1)
    for number in range(moments):
        moment = lasted * (number + rng.random()) / moments
        killed = kill_and_resume(begin, finish, recipe, folder / str(number), moment)
        assert results(killed) == results(folder / "whole"), f"killed after {moment:.3f} s"
        assert not [*killed.rglob("*.partial")]


def test_a_run_that_is_killed_and_resumed_ends_in_the_same_bytes(
    begin, finish, pocket, write_recipe, tmp_path
):
    killed_runs_are_alike(begin, finish, write_recipe(pocket), tmp_path, 3)


@pytest.mark.slow
def test_a_run_that_is_killed_at_20_moments_ends_in_the_same_bytes(
    begin, finish, pocket, write_recipe, tmp_path
):
    killed_runs_are_alike(begin, finish, write_recipe(pocket), tmp_path, 20)


# Asked to end


def test_sigterm_checkpoints_and_the_rest_is_the_same(
    begin, finish, pocket, write_recipe, tmp_path
):
    recipe, log = write_recipe(pocket), tmp_path / "log"
    finish(recipe, "--out", "whole")
    log.unlink()
    os.mkfifo(log)

    process = begin(recipe, "--out", "stopped")
    with log.open() as lines:
        next(line for line in lines if line.startswith("first 3/9"))
        os.kill(process.pid, signal.SIGTERM)
        said = lines.read().splitlines()
    process.join()

    assert process.exitcode == INTERRUPTED == 3
    assert "SIGTERM: ending at the next safe point" in said
    assert said[-1] == "stopped; continue with: jt-run --resume stopped"
    (*_, newest) = sorted((tmp_path / "stopped/checkpoints").iterdir())
    assert int(newest.stem.removeprefix("step-")) >= 3

    log.unlink()
    finish("--resume", "stopped")
    assert f"continuing at step {int(newest.stem[5:])} of 9" in log.read_text().splitlines()
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_a_second_signal_ends_at_once():
    script = """
import signal
from jtcore.signals import stop_on_signals
with stop_on_signals() as stop:
    signal.raise_signal(signal.SIGINT)
    print(stop())
    signal.raise_signal(signal.SIGTERM)
    print("not reached")
"""
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)

    assert ended.returncode == -signal.SIGTERM
    assert "not reached" not in ended.stdout


# Continued from what stands in a folder


def unfinish(run: Path, steps: int | None = None) -> None:
    """Leave of a run what one that was killed after that many steps leaves."""
    (run / "result.json").unlink()
    (run / "metrics.json").unlink()
    for path in (*run.glob("adapters/*"), *run.glob("samples/*/*")):
        path.unlink()
    for path in run.glob("checkpoints/*"):
        if steps is not None and int(path.stem.removeprefix("step-")) > steps:
            path.unlink()


@pytest.fixture
def every_step(table) -> dict:
    """Five steps of `tiny`, all of them saved."""
    table["checkpoint"] = {"every": 1, "keep": 9}
    table["stage"]["joint"]["steps"] = 5
    return table


@pytest.mark.parametrize("steps", [0, 1, 4, 5])
def test_a_run_continues_after_any_step(jt_run, every_step, steps, capsys):
    run = jt_run(every_step)
    whole = results(run)
    unfinish(run, steps)
    capsys.readouterr()

    assert cli.run(["--resume", str(run)]) == 0

    assert (f"continuing at step {steps} of 5" in capsys.readouterr().out) == (steps > 0)
    assert results(run) == whole


def test_a_torn_checkpoint_is_named_and_passed_over(jt_run, every_step, capsys):
    run = jt_run(every_step)
    whole = results(run)
    unfinish(run)
    torn = run / "checkpoints/step-00000005.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    (run / "checkpoints/step-00000004.safetensors").write_bytes(b"")
    capsys.readouterr()

    assert cli.run(["--resume", str(run)]) == 0

    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    damaged = [line.partition(" is damaged and passed over: ")[0] for line in said[1:3]]
    assert damaged == [str(run / f"checkpoints/step-0000000{n}.safetensors") for n in (5, 4)]
    assert said[3] == "continuing at step 3 of 5"
    assert results(run) == whole


def test_old_checkpoints_are_removed(jt_run, every_step):
    every_step["checkpoint"] = {"every": 2, "keep": 2}
    run = jt_run(every_step)

    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept == ["step-00000004.safetensors", "step-00000005.safetensors"]


def test_what_killed_writers_left_is_removed(jt_run, table):
    run = jt_run(table)
    unfinish(run)
    left = run / "checkpoints/.step-00000002.safetensors.0123abcd.partial"
    left.touch()

    assert cli.run(["--resume", str(run)]) == 0

    assert not left.exists()


def test_relative_paths_mean_what_they_meant_when_the_run_began(
    jt_run, table, data, tmp_path, monkeypatch
):
    monkeypatch.chdir(data)
    for name in table["data"]:
        table["data"][name]["source"] = name
    run = jt_run(table)
    whole = results(run)
    unfinish(run)
    monkeypatch.chdir(run.parent)

    assert cli.run(["--resume", run.name]) == 0

    assert results(run) == whole
    assert Path.cwd() == run.parent


def test_a_run_that_is_at_work_refuses_another(jt_run, table, capsys):
    run = jt_run(table)
    unfinish(run)

    with locked(run):
        assert cli.run(["--resume", str(run)]) == 2

    assert capsys.readouterr().err == f"{run}: another process is at work on this run\n"


def test_a_finished_run_says_so_and_is_left_alone(jt_run, table, capsys, monkeypatch):
    run = jt_run(table)
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    monkeypatch.chdir(run.parent)
    capsys.readouterr()

    assert cli.run(["--resume", run.name]) == 0

    assert capsys.readouterr().out.splitlines()[0] == "run is complete already"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == times


def test_only_a_run_can_be_resumed(tmp_path, capsys):
    assert cli.run(["--resume", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: not a run directory: it has no run.json\n"


def test_a_plugin_that_has_changed_since_is_told(jt_run, table, plugin_folder, capsys):
    folder = plugin_folder(mine="A = 1")
    run = jt_run(table, "--plugin-folder", str(folder))
    unfinish(run)
    plugin_folder(mine="A = 2")
    capsys.readouterr()

    assert cli.run(["--resume", str(run)]) == 0

    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"plugin {folder / 'mine.py'} has changed since this run began"


def test_a_folder_is_not_run_into_twice(jt_run, table, write_recipe, capsys):
    run = jt_run(table)
    capsys.readouterr()

    assert cli.run([str(write_recipe(table)), "--out", str(run)]) == 2

    assert capsys.readouterr().err == (
        f"{run} exists; name another with --out, or continue it with --resume {run}\n"
    )


# Begun at the same moment


MEETING = """
    import os
    from pathlib import Path
    from attrs import frozen
    from jtcore import hookimpl
    from jtcore.plugins import load_plugins

    Tiny = load_plugins([{tiny!r}]).find("backbones", "tiny")
    arrived, go = Path({arrived!r}), Path({go!r})

    @frozen
    class Meeting(Tiny):
        def denoiser_identity(self):  # asked for first when a folder is chosen and being filled
            if go.exists():
                with go.open() as gate:
                    arrived.write_text("x")
                    gate.read()  # until the test closes it
            return "meeting"

    @hookimpl
    def jt_backbones():
        return {{"meeting": Meeting}}
"""


def test_two_runs_that_begin_at_the_same_moment_take_two_folders(
    begin, table, plugin_folder, write_recipe, tmp_path
):
    arrived, go = tmp_path / "arrived", tmp_path / "go"
    os.mkfifo(arrived)
    os.mkfifo(go)
    places = {"tiny": table["plugins"]["folders"][0], "arrived": str(arrived), "go": str(go)}
    table["plugins"]["folders"].append(str(plugin_folder(meeting=MEETING.format(**places))))
    table["backbone"]["kind"] = "meeting"
    recipe = write_recipe(table, "mine")
    door, gate = (os.open(path, os.O_RDWR) for path in (arrived, go))

    both = [begin(recipe, "--quiet") for _ in range(2)]
    for _ in both:
        assert select([door], [], [], 120)[0], (tmp_path / "log").read_text()
        os.read(door, 1)
    go.unlink()
    os.close(gate)
    os.close(door)
    for each in both:
        each.join(120)

    assert [each.exitcode for each in both] == [0, 0], (tmp_path / "log").read_text()
    runs = sorted((tmp_path / "runs").iterdir())
    assert [run.name for run in runs] == ["mine-001", "mine-002"]
    assert results(runs[0]) == results(runs[1]) != {}
