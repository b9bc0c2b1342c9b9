"""What engines of several processes refuse before anything is computed."""

import sys
from collections.abc import Callable

import pytest
from processes.recipes import DDP, zero

from jtcore.check import check
from jtcore.errors import JtError
from jtcore.recipe import build_recipe
from jtcore.settings import DeepSpeed
from jtcore.zero.library import generated


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


def test_weights_that_processes_use_each_in_their_way_are_not_reduced_while_backward_runs(
    told, table
):
    table["adapter"]["joint"] = {"kind": "lora", "targets": "visual", "rank": 2, "bank": 2}
    branch = table["stage"]["joint"]["branch"]["joint"]
    branch |= {"data": ["motion"], "losses": {"video": {"kind": "diffusion"}}}
    assert told(zero(1, bucket=20)) == told(zero(3)) == told(zero(3, bucket=84)) == []
    assert told(zero(2, bucket=83)) == [
        "engine.deepspeed.bucket: stage.joint trains 84 numbers, more than 83, so that gradients"
        " are reduced while backward runs, and all processes have to use the same weights; which of"
        " theirs adapter.joint use depends on a batch; take bucket = 84 or more"
    ]
