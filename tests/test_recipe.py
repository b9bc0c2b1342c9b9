"""A recipe's names must mean something, and everything it has must be used."""

from copy import deepcopy

import pytest

from jtcore import JtError
from jtcore.recipe import build_recipe, recipe_table
from jtcore.tables import change


def problems(table: dict, plugins) -> tuple[str, ...]:
    with pytest.raises(JtError) as caught:
        build_recipe(table, plugins)
    return caught.value.problems


BRANCH = "stage.joint.branch.joint"


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (
            f"{BRANCH}.data=['subject', 'motoin']",
            f"{BRANCH}.data: unknown data 'motoin'; did you mean 'motion'?",
        ),
        (
            f"{BRANCH}.data=['subject', 'motion', 'subject']",
            f"{BRANCH}.data: 'subject' is named twice",
        ),
        (f"{BRANCH}.data=[]", f"{BRANCH}.data: Length of 'data' must be >= 1: 0"),
        (
            f"{BRANCH}.adapters=['joint', 'joint']",
            f"{BRANCH}.adapters: 'joint' is named twice",
        ),
        (
            f"{BRANCH}.adapters=['joint', 'qqq']",
            f"{BRANCH}.adapters: unknown adapter 'qqq'; there are joint",
        ),
        (f"{BRANCH}.losses=false", f"{BRANCH}.losses: missing"),
        (
            f"{BRANCH}.losses.motion.on=image",
            f"{BRANCH}.losses: none is on 'video', which data 'motion' is",
        ),
        (
            f"{BRANCH}.data=['subject']",
            f"{BRANCH}.losses.motion.on: no data of the branch is 'video'",
        ),
        (f"{BRANCH}.chance=0", f"{BRANCH}.chance: must be > 0: 0.0"),
        (f"{BRANCH}.chance=1.5", f"{BRANCH}.chance: must be <= 1: 1.5"),
        (f"{BRANCH}.losses.motion.weight=-1", f"{BRANCH}.losses.motion.weight: must be >= 0: -1.0"),
        (
            f"{BRANCH}.losses.motion.on=vidoe",
            f"{BRANCH}.losses.motion.on: expected 'image' or 'video' or 'all', got 'vidoe' (str);"
            " did you mean 'video'?",
        ),
        (
            "adapter.idle={kind='lora',targets='x'}",
            "adapter.idle: no branch of any stage trains it",
        ),
        (
            "sample.scales={jiont=1}",
            "sample.scales: unknown adapter 'jiont'; did you mean 'joint'?",
        ),
        (
            "validation.data=['motio']",
            "validation.data: unknown data 'motio'; did you mean 'motion'?",
        ),
        ("sample=false", "metric: there is no [sample] to measure"),
        ("stage.joint.steps=0", "stage.joint.steps: must be >= 1: 0"),
        ("stage.joint.lr=-1", "stage.joint.lr: must be > 0: -1.0"),
        ("stage.joint.ema=1", "stage.joint.ema: must be < 1: 1.0"),
        ("stage.joint.betas=[0.9, 1.0]", "stage.joint.betas: must be < 1: 1.0"),
        ("stage.joint.warmup=-1", "stage.joint.warmup: must be >= 0: -1"),
        ("stage.joint.accumulate=0", "stage.joint.accumulate: must be >= 1: 0"),
        ("seed=-1", "seed: must be >= 0: -1"),
        ("sample.size=[0, 24]", "sample.size: must be >= 1: 0"),
        ("sample.prompts=[]", "sample.prompts: Length of 'prompts' must be >= 1: 0"),
        ("sample.fps=0.09", "sample.fps: must be >= 0.1: 0.09"),
        ("sample.fps=0.1", None),
        ("sample.seeds=[]", "sample.seeds: Length of 'seeds' must be >= 1: 0"),
        (
            "sample.seeds=[4, 5, 4]",
            "sample.seeds: expected different values, got [4, 5, 4]",
        ),
        (
            "validation.data=['held_out', 'motion']",
            "validation.data: 'motion' is trained on; name data that no branch uses",
        ),
        ("validation.data=['held_out']", None),
        ("checkpoint.keep=0", "checkpoint.keep: must be >= 1: 0"),
        (
            "engine.precision=fp8",
            "engine.precision: expected 'fp32' or 'bf16' or 'fp16', got 'fp8' (str)",
        ),
        ("backbone=false", "backbone: missing"),
        ("data.subject.fps=2", None),
        (
            "data.subject={source='x',size=[8,8],fps=2.0,stride=3}",
            "data.subject: expected fps or stride, got both",
        ),
    ],
)
def test_a_problem_is_told_with_its_place(table, plugins, setting, problem):
    changed = change(table, [setting])
    if problem is None:
        build_recipe(changed, plugins)
    else:
        assert problems(changed, plugins) == (problem,)


def test_what_is_trained_must_be_on(table, plugins):
    told = problems(change(table, [f"{BRANCH}.trains=['joit']"]), plugins)
    assert told == (
        f"{BRANCH}.trains: unknown adapter of the branch 'joit'; did you mean 'joint'?",
        "adapter.joint: no branch of any stage trains it",
    )


def test_a_branch_must_train_something(table, plugins):
    told = problems(change(table, [f"{BRANCH}.trains=[]"]), plugins)
    assert told == (
        f"{BRANCH}.trains: expected at least one adapter",
        "adapter.joint: no branch of any stage trains it",
    )


def test_all_problems_with_names_are_told_at_once(table, plugins):
    settings = [f"{BRANCH}.data=['a', 'motion']", f"{BRANCH}.trains=['b']", "sample.scales={c=1}"]

    assert problems(change(table, settings), plugins) == (
        f"{BRANCH}.data: unknown data 'a'; there are held_out, motion, subject",
        f"{BRANCH}.trains: unknown adapter of the branch 'b'; there are joint",
        "adapter.joint: no branch of any stage trains it",
        "sample.scales: unknown adapter 'c'; there are joint",
    )


def test_a_resolved_recipe_resolves_to_itself(table, plugins):
    table["validation"] = {"data": ["held_out"]}
    resolved = recipe_table(build_recipe(table, plugins))

    assert recipe_table(build_recipe(resolved, plugins)) == resolved


def test_a_resolved_recipe_has_what_was_given_and_every_default(table, plugins):
    resolved = recipe_table(build_recipe(table, plugins))

    def within(given, found) -> bool:
        if not isinstance(given, dict):
            return given == found
        return all(key in found and within(value, found[key]) for key, value in given.items())

    assert within(table, resolved)
    assert resolved["stage"]["joint"]["weight_decay"] == 1e-4
    assert resolved["adapter"]["joint"]["dropout"] == 0.1


def test_a_table_is_left_as_it_was(table, plugins):
    before = deepcopy(table)
    build_recipe(table, plugins)

    assert table == before


def test_data_is_used_by_branches_and_by_validation(table, plugins):
    table["data"] |= {"spare": table["data"]["subject"]}
    table["validation"] = {"data": ["held_out"]}
    assert list(build_recipe(table, plugins).used_data) == ["subject", "motion", "held_out"]
