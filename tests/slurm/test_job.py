"""What a job does when Slurm tells it to end, without Slurm."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jtcore.grids.state import read_failure, state_of
from jtplugins.launchers._slurm_job import Work

AT_STEP_2 = """
    import json, signal
    from pathlib import Path
    from jtcore import hookimpl

    @hookimpl
    def jt_step_finished(run, step):
        signals = run.folder.parent / "signals"
        if step.number == 2 and signals.exists():
            for each in json.loads(signals.read_text()):
                if isinstance(each, str):
                    raise RuntimeError(each)
                signal.raise_signal(each)
"""


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """What submitit's own handler has heard; all handlers are put back in the end."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    found: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: found.append(number))
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def grid(table, jt_run, plugin_folder, answers) -> Path:
    """A grid of one run of five steps, submitted."""
    del table["sample"], table["metric"]
    table["stage"]["joint"]["steps"] = 5
    table["checkpoint"] = {"every": 99}
    table["plugins"]["folders"].append(str(plugin_folder(signals=AT_STEP_2)))
    out = jt_run(table | {"variant": {"a": {}}, "launch": {"kind": "slurm"}}, name="grid")
    (out / "grid.md").unlink()
    return out


@pytest.fixture
def status(grid, heard, monkeypatch) -> Callable[..., int | None]:
    """The exit status of a job that is told these signals at its second step, or dies of a
    text there."""

    told = {"SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(grid / "slurm")}
    for name, value in (told | {"SLURM_JOB_ID": "42"}).items():
        monkeypatch.setenv(name, value)

    def do(*signals: int | str) -> int | None:
        (grid / "signals").write_text(json.dumps(signals))
        try:
            Work(grid)(grid / "a")
        except SystemExit as ended:
            return ended.code
        return 0

    return do


def test_a_job_does_its_run_and_the_last_one_writes_the_tables(status, grid, heard):
    assert status() == 0

    assert state_of(grid / "a") == "finished"
    assert (grid / "grid.md").is_file() and heard == []


def test_what_a_run_says_is_found_from_its_folder(status, grid):
    status()

    assert (grid / "a/log.txt").resolve() == grid / "slurm/42_0_log.out"


def test_repeated_signals_to_end_leave_a_checkpoint(status, grid):
    assert status(signal.SIGTERM, signal.SIGTERM, signal.SIGTERM) == 3

    assert [path.name for path in (grid / "a/checkpoints").iterdir()] == [
        "step-00000003.safetensors"
    ]
    assert not (grid / "grid.md").exists()


@pytest.mark.parametrize(
    ("state", "again"),
    [
        ("RUNNING", [signal.SIGUSR2]),  # preempted: who ends in its time of grace is not requeued
        ("COMPLETING", []),  # cancelled, or requeued already
    ],
)
def test_a_job_queues_itself_again_unless_slurm_has_ended_it(status, heard, answers, state, again):
    (answers / "queue").write_text(f"{state}\n")

    assert status(signal.SIGTERM) == 3

    assert heard == again


def test_a_job_whose_time_is_up_is_queued_again_when_all_is_on_disk(status, grid, heard):
    laid = []
    signal.signal(signal.SIGUSR2, lambda *_: laid.extend((grid / "a/checkpoints").iterdir()))

    assert status(signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM) == 3

    assert [path.name for path in laid] == ["step-00000003.safetensors"]


def test_a_job_that_submitit_does_not_queue_again_says_why(status, grid, heard):
    from submitit.core.utils import UncompletedJobError

    def refuse(number: int, frame: object) -> None:
        raise UncompletedJobError("timed-out too many times")

    signal.signal(signal.SIGUSR2, refuse)
    assert status(signal.SIGUSR2) == 3

    assert read_failure(grid / "a").problems == (
        "its job came to its time limit once more than launch.timeouts allows; what it has done is"
        " kept",
    )


def test_a_job_whose_run_fails_says_why_and_ends_with_a_status(status, grid, capsys):
    assert status("no luck") == 2

    assert capsys.readouterr().err.splitlines()[-1] == "RuntimeError: no luck"
    assert read_failure(grid / "a").problems == ("RuntimeError: no luck",)
    assert (grid / "grid.md").is_file()  # it was the last
