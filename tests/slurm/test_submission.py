"""What sbatch is told of a grid, with programs in Slurm's place that answer as it does."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission, FailedSubmissionError

from jtcore import cli
from jtcore.errors import JtError
from jtcore.plugins import Plugins
from jtcore.run import locked
from jtcore.structure import structure_component

NO_METRICS = ("sample", "metric")


@pytest.fixture
def grid(table) -> dict:
    for name in NO_METRICS:
        del table[name]
    return table | {"variant": {"a": {}, "b": {}}, "launch": {"kind": "slurm"}}


@pytest.fixture
def submit(write_recipe, tmp_path, capfd) -> Callable[..., Path]:
    """Submit a grid, and say where its folder is."""

    def run(grid: dict, status: int = 0) -> Path:
        found = cli.run([str(write_recipe(grid)), "--out", str(tmp_path / "grid")])
        assert found == status, capfd.readouterr().err
        return tmp_path / "grid"

    return run


def said_to_sbatch(grid: Path) -> dict[str, str | bool]:
    lines = (grid / "slurm/42_submission.sh").read_text().splitlines()
    said = [line.removeprefix("#SBATCH --").partition("=") for line in lines if "#SBATCH" in line]
    return {name: value or True for name, _, value in said}


def known_jobs(grid: Path) -> dict[str, dict]:
    return json.loads((grid / "slurm/jobs.json").read_text())


# What is submitted


def test_every_option_reaches_sbatch(grid, submit, answers):
    grid["launch"] |= {
        "partition": "gpu",
        "account": "lab",
        "qos": "long",
        "constraint": "a100|h100",
        "hours": 1.5,
        "gpus": 2,
        "cpus": 6,
        "memory": 0.5,
        "jobs": 1,
        "notice": 240,
        "setup": ["module load cuda", "ulimit -c 0"],
        "sbatch": {"mail-type": "END", "exclusive": True, "nice": 10},
    }
    out = submit(grid)

    assert said_to_sbatch(out) == {
        "partition": "gpu",
        "account": "lab",
        "qos": "long",
        "constraint": "'a100|h100'",
        "time": "90",
        "nodes": "1",
        "gpus-per-node": "2",
        "ntasks-per-node": "2",
        "cpus-per-task": "6",
        "mem": "512M",
        "array": "0-1%1",
        "signal": "USR2@240",
        "mail-type": "END",
        "exclusive": True,
        "nice": "10",
        "requeue": True,
        "output": f"{out}/slurm/%A_%a_0_log.out",
        "open-mode": "append",
        "job-name": known_jobs(out)["a"]["name"],
        "wckey": "submitit",
    }
    script = (out / "slurm/42_submission.sh").read_text()
    threads = 'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-6}"'
    assert f"# setup\n{threads}\nmodule load cuda\nulimit -c 0\n" in script
    (command,) = (line for line in script.splitlines() if line.startswith("srun"))
    assert " --cpus-per-task=6 " in command


def test_what_is_not_said_is_left_to_the_cluster(grid, submit, answers):
    grid["launch"]["gpus"] = 0
    out = submit(grid)

    assert said_to_sbatch(out).keys() == {
        *("time", "nodes", "ntasks-per-node", "cpus-per-task", "array", "signal", "requeue"),
        *("output", "open-mode", "job-name", "wckey"),
    }
    assert said_to_sbatch(out)["array"] == "0-1%2"


@pytest.mark.parametrize(("hours", "minutes"), [(24, 1440), (0.1, 6), (1 / 30, 2), (0.51, 31)])
def test_time_limits_are_whole_minutes(plugins, hours, minutes):
    table = {"kind": "slurm", "hours": hours, "notice": 10}
    assert structure_component("launchers", table, plugins, "launch").spec.minutes == minutes


def test_timeouts_are_remembered_in_the_job(grid, submit, answers):
    grid["launch"]["timeouts"] = 7
    out = submit(grid)

    job = DelayedSubmission.load(out / "slurm/42_1_submitted.pkl")
    assert (job.function.grid, *job.args) == (out, out / "b")
    assert (job._timeout_countdown, job._timeout_min) == (7, 1440)


def test_one_run_is_no_array(grid, submit, answers):
    del grid["variant"]["b"]
    out = submit(grid)

    assert "array" not in said_to_sbatch(out)
    assert known_jobs(out)["a"]["job"] == "42"


@pytest.mark.parametrize(("jobs", "told"), [(0, ""), (1, " with 1 at once")])
def test_a_dry_run_reckons_with_as_many_jobs_as_are_asked_for(
    grid, write_recipe, answers, jobs, told, capsys
):
    grid["launch"]["jobs"] = jobs
    assert cli.run([str(write_recipe(grid)), "--dry-run"]) == 0

    said = capsys.readouterr().out
    assert (" at once" in said) == bool(told) and told in said


# What is refused


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"hours": 0}, "launch.hours: must be > 0: 0.0"),
        ({"gpus": -1}, "launch.gpus: must be >= 0: -1"),
        ({"cpus": 0}, "launch.cpus: must be >= 1: 0"),
        ({"memory": 0}, "launch.memory: must be > 0: 0.0"),
        ({"jobs": -1}, "launch.jobs: must be >= 0: -1"),
        ({"timeouts": -1}, "launch.timeouts: must be >= 0: -1"),
        ({"poll": 0}, "launch.poll: must be > 0: 0.0"),
        ({"notice": 0}, "launch.notice: must be >= 1: 0"),
        (
            {"hours": 0.05},
            "launch: notice of 300 s, which Slurm may give 60 s earlier, leaves nothing of hours ="
            " 0.05",
        ),
        (
            {"partition": ""},
            "launch.partition: expected a name, or nothing for the cluster's own, got ''",
        ),
        ({"qos": 3}, "launch.qos: expected str, got 3 (int)"),
        (
            {"setup": ["#SBATCH --mem=3"]},
            "launch.setup: '#SBATCH --mem=3' is no command; parameters go to launch.sbatch",
        ),
        (
            {"sbatch": {"time": 3}},
            "launch.sbatch: leave out time: it is what launch.hours says",
        ),
        ({"sbatch": {"output": "x"}}, "launch.sbatch: leave out output: the launcher says it"),
        (
            {"sbatch": {"exclusive": False}},
            "launch.sbatch: exclusive: expected a text, a number or true, got False",
        ),
        ({"partitoin": "gpu"}, "launch.partitoin: unknown key; did you mean 'partition'?"),
    ],
)
def test_options_that_cannot_be_are_told(plugins: Plugins, options, problem):
    with pytest.raises(JtError) as caught:
        structure_component("launchers", {"kind": "slurm", **options}, plugins, "launch")

    assert str(caught.value) == problem


@pytest.mark.parametrize("option", ["--check", "--dry-run"])
def test_what_this_machine_lacks_is_told_before_anything_is_made(
    grid, write_recipe, option, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert cli.run([str(write_recipe(grid)), option]) == 2

    assert capsys.readouterr().err == (
        "launch: kind 'slurm' needs submitit; pip install jtcore[slurm]\n"
        "launch: kind 'slurm' finds no sbatch, srun, squeue on PATH; start jt-run where jobs of the"
        " cluster are submitted, or take kind 'local' for this machine\n"
    )


def test_what_sbatch_refuses_is_told_and_no_job_is_remembered(grid, submit, answers, capfd):
    (answers / "refusal").write_text(
        "sbatch: error: invalid partition specified: gpu\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    )
    out = submit(grid, status=2)

    assert capfd.readouterr().err.splitlines()[-1] == (
        "launch: sbatch refuses the jobs: invalid partition specified: gpu; Batch job submission"
        " failed: Invalid partition name specified"
    )
    assert known_jobs(out) == {}


def test_no_run_takes_the_folder_of_the_jobs(grid, submit, answers, capfd):
    grid["variant"] = {"slurm": {}}
    submit(grid, status=2)

    told = "launch: jobs have the folder slurm; call that run something else\n"
    assert capfd.readouterr().err == told


# Submitted again


def test_only_what_is_not_in_the_queue_is_submitted_again(grid, submit, answers, capfd):
    out = submit(grid)
    first = known_jobs(out)
    (answers / "queue").write_text(
        f"{first['a']['name']}|42|0|PENDING|\n{first['a']['name']}|42|1|OUT_OF_MEMORY|node7\n"
    )
    capfd.readouterr()
    submit(grid)

    said = capfd.readouterr().out
    assert "1 run is queued or running already\n" in said
    assert f"b: its job 42_1 ended as OUT_OF_MEMORY; its last words are in {out}" in said
    assert "1 run submitted as job 42\n" in said
    now = known_jobs(out)
    assert now["a"] == first["a"] and now["b"]["name"] != first["b"]["name"]


def test_jobs_are_known_though_the_launcher_died_before_it_heard_their_numbers(
    grid, submit, answers, tmp_path, capfd
):
    (answers / "mumble").write_text("what submitit does not understand, and dies of\n")
    with pytest.raises(FailedSubmissionError):
        submit(grid)
    known = known_jobs(tmp_path / "grid")
    assert [job["job"] for job in known.values()] == [None, None]

    name = known["a"]["name"]
    (answers / "queue").write_text(f"{name}|43|0|RUNNING|node7\n{name}|43|1|PENDING|\n")
    out = submit(grid)

    said = capfd.readouterr().out
    assert "2 runs are queued or running already\n" in said and "scancel 43\n" in said
    assert known_jobs(out) == known


def test_accounts_know_jobs_that_the_queue_has_forgotten(grid, submit, answers, capfd):
    out = submit(grid)
    name = known_jobs(out)["a"]["name"]
    (answers / "accounts").write_text(
        f"{name}|42_0|CANCELLED by 1000|node7\n{name}|42_1|TIMEOUT|node7\n"
    )
    submit(grid)

    said = capfd.readouterr().out
    assert "  a: its job 42_0 was cancelled\n" in said
    assert "  b: its job 42_1 was killed at its time limit before it had saved itself" in said


def test_nothing_is_submitted_while_the_queue_does_not_answer(grid, submit, answers, capfd):
    out = submit(grid)
    before = known_jobs(out)
    told = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    (answers / "outage").write_text(f"{told}\n")
    capfd.readouterr()
    submit(grid, status=2)

    assert capfd.readouterr().err == f"squeue: {told}\n"
    assert known_jobs(out) == before


def test_a_run_that_another_process_is_doing_is_left_to_it(grid, submit, answers, capfd):
    out = submit(grid)
    name = known_jobs(out)["a"]["name"]
    (answers / "queue").write_text(f"{name}|42|0|CANCELLED|\n{name}|42|1|PENDING|\n")
    capfd.readouterr()

    with locked(out / "a"):
        submit(grid)

    said = capfd.readouterr().out
    assert "  a: is being done by a process that is no job, and left to it\n" in said
    assert "submitted" not in said
