"""Two processes of one run end together."""

import os
import signal

import pytest
import torch
from processes.recipes import DDP, LONG, NONE_SMALL, shared, weights, zero

from jtcore.options import INTERRUPTED, MISTAKE


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(DDP, id="ddp"),
        pytest.param(zero(1), id="zero1", marks=pytest.mark.slow),
        pytest.param(zero(2), id="zero2"),
        pytest.param(zero(3), id="zero3", marks=pytest.mark.slow),
        pytest.param(
            zero(3, offload_optimizer=True, offload_parameters=True, raw=NONE_SMALL),
            id="zero3-offload",
            marks=pytest.mark.slow,
        ),
    ],
)
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

    assert [each.exitcode for each in started] == [INTERRUPTED] * 2
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
    assert [each.exitcode for each in started] == [MISTAKE] * 2, logs
    assert "".join(logs).count("the second process has no more wishes") == 1
    assert "Traceback" not in "".join(logs)
