"""Two processes of one run: the weights that one has."""

import json

import pytest
import torch
from processes.recipes import DDP, NONE_SMALL, accumulating, assert_alike, shared, weights, zero


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
        zero(3, raw=NONE_SMALL),
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
        zero(3, offload_optimizer=True, offload_parameters=True, raw=NONE_SMALL),
        zero(3, bucket=20, raw=NONE_SMALL),
        zero(3),
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
@pytest.mark.parametrize("engine", [DDP, zero(2), zero(3)], ids=["ddp", "zero2", "zero3"])
def test_without_a_launcher_the_world_is_one_process(
    engine, stages, jt_run, finish, write_recipe, tmp_path
):
    alone = jt_run(stages, name="alone")
    finish(write_recipe(shared(stages, engine)), "--out", "one", size=1)
    assert_alike(tmp_path / "one", alone)


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
