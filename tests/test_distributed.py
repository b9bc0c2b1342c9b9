"""Two processes of one run: the weights, the files and the ends that one has."""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jtcore import cli
from jtcore.check import check
from jtcore.errors import JtError
from jtcore.processes import Place, first_node, meeting_point, place_of
from jtcore.recipe import build_recipe
from jtcore.settings import DeepSpeed
from jtcore.zero import generated

SCRIPT = Path(__file__).parent / "processes/jt_run.py"
LONG = 900  # s, for a machine that does other things as well
DDP = {"kind": "ddp"}


def zero(stage: int, **options) -> dict:
    return {"kind": "deepspeed", "deepspeed": {"stage": stage, **options}}


@pytest.fixture(scope="module")
def processes():
    """Where processes are forked from."""
    context = get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        context.set_forkserver_preload(["jtcore.launch", "torch.utils.tensorboard", "deepspeed"])
        yield context


@pytest.fixture
def begin(processes, tmp_path) -> Iterator[Callable[..., list[BaseProcess]]]:
    """Begin a `jt-run` of two processes, as torchrun does; each has a log of its own."""
    begun: list[BaseProcess] = []

    def start(*arguments: str | Path, size: int = 2) -> list[BaseProcess]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = []
        for rank in range(size):
            told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank}
            told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            given = {
                "arguments": [str(argument) for argument in arguments],
                "directory": str(tmp_path),
                "log": str(tmp_path / f"log{rank}"),
                "environment": {name: str(value) for name, value in told.items()},
            }
            started.append(processes.Process(target=runpy.run_path, args=(str(SCRIPT), given)))
            started[-1].start()
        begun.extend(started)
        return started

    yield start
    for each in begun:
        each.kill()
        each.join()


@pytest.fixture
def finish(begin, tmp_path) -> Callable[..., None]:
    """Run to the end."""

    def run(*arguments: str | Path, size: int = 2) -> None:
        started = begin(*arguments, size=size)
        for each in started:
            each.join(LONG)
        logs = "\n".join((tmp_path / f"log{rank}").read_text() for rank in range(size))
        assert [each.exitcode for each in started] == [0] * size, logs

    return run


@pytest.fixture
def stages(table) -> dict:
    """Two adapters of two stages: branches that take turns and train one of those that are on,
    with an average; and branches that come by chance, on two batches a step."""
    del table["sample"], table["metric"]

    def branch(on: list[str], **options) -> dict:
        losses = {"image": {"kind": "diffusion", "on": "image"}}
        losses["video"] = {"kind": "ait", "on": "video"}
        return {"data": ["subject", "motion"], "adapters": on, "losses": losses, **options}

    lora = {"kind": "lora", "targets": "visual", "rank": 2}
    table["adapter"] = {"one": table["adapter"]["joint"], "two": lora}
    first = {"one": branch(["one"]), "two": branch(["one", "two"], trains=["two"])}
    second = {"one": branch(["one", "two"], trains=["one"]), "two": branch(["two"], chance=0.5)}
    common = {"lr": 0.01, "weight_decay": 0.1, "schedule": "cosine"}
    table["stage"] = {
        "first": {"steps": 5, "select": "one", "ema": 0.5, "branch": first, **common},
        "second": {"steps": 3, "branch": second, **common},
    }
    table["checkpoint"] = {"every": 2, "keep": 9}
    table["validation"] = {"data": ["held_out"], "draws": 2}
    table["engine"] = {"device": "cpu"}
    return table


def accumulating(table: dict) -> dict:
    """What one process does that does the work of two."""
    stages = {
        name: {**stage, "accumulate": 2 * stage.get("accumulate", 1)}
        for name, stage in table["stage"].items()
    }
    return {**table, "stage": stages}


def shared(table: dict, engine: dict) -> dict:
    return {**table, "engine": {**table["engine"], **engine}}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.stem}.{name}": tensor
        for file in sorted(run.glob("adapters/*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def assert_alike(run: Path, other: Path, most: float = 1e-6) -> None:
    """Trained to the same weights but for the order in which sums are taken, and whole at the end,
    where the first process validates."""
    found, expected = weights(run), weights(other)
    assert found.keys() == expected.keys() != set()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=most, msg=name)
    measured, same = (json.loads((r / "metrics.json").read_text()) for r in (run, other))
    changed = [each["validation"]["held_out"]["change"] for each in (measured, same)]
    assert changed[0] == pytest.approx(changed[1], abs=1e-5) and changed[1] != 0


# The weights of one process


@pytest.mark.parametrize("engine", [DDP, zero(2)], ids=["ddp", "zero2"])
def test_two_processes_train_what_one_trains_that_accumulates_twice_as_much(
    engine, stages, jt_run, write_recipe, finish, tmp_path
):
    alone = jt_run(accumulating(stages), name="alone")
    finish(write_recipe(shared(stages, engine)), "--out", "both")
    assert_alike(tmp_path / "both", alone)


def test_averaged_gradients_are_those_of_one_process_to_the_last_bit(
    stages, jt_run, write_recipe, finish, tmp_path
):
    branch = stages["stage"]["first"]["branch"]["one"]
    branch |= {"data": ["subject"], "losses": {"image": {"kind": "diffusion"}}}
    del stages["stage"]["second"], stages["stage"]["first"]["branch"]["two"]
    del stages["adapter"]["two"]
    alone = jt_run(accumulating(stages), name="alone")
    finish(write_recipe(shared(stages, DDP)), "--out", "both")
    found, expected = weights(tmp_path / "both"), weights(alone)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        zero(1),
        zero(3),
        zero(2, bucket=20),
        zero(3, bucket=20),
        zero(1, offload_optimizer=True),
        zero(2, offload_optimizer=True),
        zero(3, offload_optimizer=True, offload_parameters=True),
        zero(2) | {"gradient_checkpointing": True},
        zero(3) | {"gradient_checkpointing": True},
        zero(2, raw={"zero_optimization": {"round_robin_gradients": True}}),
    ],
    ids=str,
)
def test_all_ways_to_divide_train_the_same_weights(
    engine, stages, jt_run, write_recipe, finish, tmp_path
):
    alone = jt_run(accumulating(stages), name="alone")
    finish(write_recipe(shared(stages, engine)), "--out", "both")
    assert_alike(tmp_path / "both", alone)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [DDP, zero(2), zero(3)], ids=["ddp", "zero2", "zero3"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_is_that_of_one_process(
    precision, engine, stages, jt_run, write_recipe, finish, tmp_path
):
    stages["engine"]["precision"] = precision
    alone = jt_run(accumulating(stages), name="alone")
    finish(write_recipe(shared(stages, engine)), "--out", "both")
    assert_alike(tmp_path / "both", alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        zero(2, offload_optimizer=True),
        zero(3, offload_optimizer=True, offload_parameters=True),
        zero(3, bucket=20),
    ],
    ids=str,
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_weights_are_trained_in_parts(
    checkpointing, engine, stages, jt_run, write_recipe, finish, tmp_path
):
    stages["engine"]["gradient_checkpointing"] = checkpointing
    stages["adapter"]["two"] = {"kind": "weights", "targets": "all"}
    alone = jt_run(accumulating(stages), name="alone")
    finish(write_recipe(shared(stages, engine)), "--out", "both")
    assert_alike(tmp_path / "both", alone)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [DDP, zero(2), zero(3)], ids=["ddp", "zero2", "zero3"])
def test_processes_may_train_different_members_of_a_bank(
    engine, stages, jt_run, write_recipe, finish, tmp_path
):
    stages["adapter"]["two"]["bank"] = 2
    for stage in stages["stage"].values():
        stage["branch"]["two"] |= {"data": ["motion"], "losses": {"video": {"kind": "ait"}}}
    stages["stage"]["second"]["branch"]["one"]["adapters"] = ["one"]
    del stages["stage"]["second"]["branch"]["one"]["trains"]
    alone = jt_run(accumulating(stages), name="alone")
    finish(write_recipe(shared(stages, engine)), "--out", "both")
    assert_alike(tmp_path / "both", alone)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [DDP, zero(1), zero(2)], ids=["ddp", "zero1", "zero2"])
def test_one_of_several_processes_validates_while_the_others_wait(
    engine, stages, jt_run, write_recipe, finish, tmp_path
):
    stages["validation"]["every"] = 2
    alone = jt_run(accumulating(stages), name="alone")
    finish(write_recipe(shared(stages, engine)), "--out", "both")
    assert_alike(tmp_path / "both", alone)

    found, expected = (
        json.loads((run / "validation.json").read_text()) for run in (tmp_path / "both", alone)
    )
    assert [record["step"] for record in found] == [2, 4, 6, 8]
    for here, there in zip(found, expected, strict=True):
        one, other = here["losses"]["held_out"], there["losses"]["held_out"]
        assert one["adapted"] == pytest.approx(other["adapted"], rel=1e-4)
        assert one["branches"].keys() == other["branches"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("engine", [DDP, zero(2), zero(3)], ids=["ddp", "zero2", "zero3"])
def test_without_a_launcher_the_world_is_one_process(
    engine, stages, jt_run, finish, write_recipe, tmp_path
):
    alone = jt_run(stages, name="alone")
    finish(write_recipe(shared(stages, engine)), "--out", "one", size=1)
    assert_alike(tmp_path / "one", alone)


# Ends


@pytest.mark.parametrize("engine", [DDP, zero(2)], ids=["ddp", "zero2"])
def test_a_signal_to_one_process_ends_all_at_one_step_and_the_rest_is_the_same(
    engine, stages, write_recipe, begin, finish, tmp_path
):
    recipe = write_recipe(shared(stages, engine))
    finish(recipe, "--out", "whole")
    (tmp_path / "log0").unlink()
    os.mkfifo(tmp_path / "log0")

    started = begin(recipe, "--out", "stopped")
    with (tmp_path / "log0").open() as lines:
        next(line for line in lines if line.startswith("first 3/8"))
        os.kill(started[1].pid, signal.SIGTERM)
        said = lines.read().splitlines()
    for each in started:
        each.join(LONG)

    assert [each.exitcode for each in started] == [cli.INTERRUPTED] * 2
    assert said[-1] == "stopped; continue with: jt-run --resume stopped"
    (tmp_path / "log0").unlink()
    finish("--resume", "stopped")
    assert "continuing at step" in (tmp_path / "log0").read_text()
    found, expected = weights(tmp_path / "stopped"), weights(tmp_path / "whole")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


FAILING = """
import os
from jtcore import hookimpl, JtError

@hookimpl
def jt_choose_branches(stage, step, rng):
    if step.number == 2 and os.environ.get("RANK") == "1":
        raise JtError("the second process has no more wishes")
"""


def test_an_error_of_one_process_ends_all_and_is_told_once(
    stages, plugin_folder, write_recipe, begin, tmp_path
):
    folder = plugin_folder(failing=FAILING)
    recipe = write_recipe(shared(stages, DDP))
    started = begin(recipe, "--out", "failed", "--plugin-folder", folder)
    for each in started:
        each.join(LONG)
    logs = [(tmp_path / f"log{rank}").read_text() for rank in range(2)]
    assert [each.exitcode for each in started] == [cli.MISTAKE] * 2, logs
    assert "".join(logs).count("the second process has no more wishes") == 1
    assert "Traceback" not in "".join(logs)


# What is refused


@pytest.fixture
def told(table, plugins) -> Callable[..., list[str]]:
    """What the check tells of these engine options, and of others' beside them."""

    def problems(engine: dict, **tables: dict) -> list[str]:
        try:
            check(build_recipe({**table, "engine": {"device": "cpu", **engine}, **tables}, plugins))
        except JtError as error:
            return list(error.problems)
        return []

    return problems


@pytest.mark.parametrize("engine", [DDP, zero(1), zero(3)], ids=str)
def test_engines_of_several_processes_pass_the_check(engine, told):
    assert told(engine) == []


def test_a_plain_engine_under_a_launcher_is_refused(told, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert told({}) == [
        'engine.kind: "plain" is for one process, and the launcher has started 2; take "ddp" or'
        ' "deepspeed", or start it without a launcher'
    ]


def test_a_missing_deepspeed_is_told_with_its_cure(told, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    assert told(zero(2)) == [
        'engine.kind: "deepspeed" is not installed; pip install jtcore[deepspeed]'
    ]


def test_what_divided_weights_cannot_be_beside_is_refused(told, table):
    preview = {**table["sample"], "preview": {"every": 1}}
    memory = {"stream_blocks": 1, "optimizer": "8bit", "base": "int8"}
    found = told({**zero(3), "compile": True, "memory": memory}, sample=preview)
    places = {problem.partition(":")[0] for problem in found}
    assert places >= {
        "engine.memory.stream_blocks",
        "engine.memory.optimizer",
        "engine.memory.base",
        "engine.compile",
        "sample.preview",
    }


def test_options_of_deepspeed_without_it_are_refused(told):
    assert told({"deepspeed": {}}) == [
        "engine: the table deepspeed needs kind = \"deepspeed\", found 'plain'"
    ]
    assert told(zero(2, offload_parameters=True)) == [
        "engine.deepspeed: offload_parameters needs stage = 3: the others divide no weights"
    ]


def test_raw_keys_of_deepspeed_are_laid_over_the_generated(told):
    raw = {"zero_optimization": {"round_robin_gradients": True}, "wall_clock_breakdown": True}
    made = generated(DeepSpeed(raw=raw), clip=0.5)
    assert made["zero_optimization"] == {
        "stage": 2,
        "reduce_bucket_size": 500_000_000,
        "round_robin_gradients": True,
    }
    assert made["wall_clock_breakdown"] and made["gradient_clipping"] == 0.5
    assert told(zero(2, raw={"fp16": {"enabled": True}, "zero_optimization": {"stage": 1}})) == [
        "engine.deepspeed.raw: leave out what the recipe says elsewhere: fp16 (engine.precision),"
        " zero_optimization.stage (engine.deepspeed.stage)"
    ]


# Launchers


def test_launchers_tell_places():
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    srun = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
    assert place_of(torchrun) == place_of(srun) == Place(5, 8, 1)
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}  # without srun
    assert place_of(batch) == place_of({}) == Place(0, 1, 0)
    with pytest.raises(JtError, match="WORLD_SIZE is set, but not RANK and LOCAL_RANK"):
        place_of({"WORLD_SIZE": "2"})


def test_processes_find_each_other():
    said = {"MASTER_ADDR": "here", "MASTER_PORT": "7"}
    slurm = {"SLURM_STEP_NODELIST": "gpu[07-09,12],big1", "SLURM_JOB_ID": "40001"}
    assert meeting_point(said) == ("here", "7")
    assert meeting_point(slurm) == ("gpu07", "20001")
    assert meeting_point(slurm | said) == ("here", "7")
    assert [first_node(n) for n in ("a1", "a1,b2", "a-b-[1-3]", "n[03]-ib")] == [
        *("a1", "a1", "a-b-1", "n03-ib")
    ]
    with pytest.raises(JtError, match="several processes need MASTER_ADDR and MASTER_PORT"):
        meeting_point({"MASTER_ADDR": "here"})


@pytest.mark.slow
def test_torchrun_starts_the_module(stages, write_recipe, tmp_path):
    recipe = write_recipe(shared(stages, DDP))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "jtcore.cli", "run", recipe, "--out", tmp_path / "run"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 0, ended.stdout
    assert (tmp_path / "run/result.json").exists()


@pytest.mark.slow
def test_plain_runs_never_import_deepspeed(stages, write_recipe, tmp_path):
    script = f"""
import sys
from jtcore import cli
status = cli.run([{str(write_recipe(stages))!r}, "--out", {str(tmp_path / "run")!r}, "--quiet"])
sys.exit(status or "deepspeed" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
