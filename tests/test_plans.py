"""Plans of all shipped recipes: they complete, and add up."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jtcore import cli
from jtcore.planner import measure
from jtcore.planner.ledger import Ledger
from jtcore.planner.passes import parts_of
from jtcore.tables import read_table
from jtplugins.pocket.cli import main as jt_pocket

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory) -> Iterator[None]:
    """Where pocket's prompts are. Encoders that are alike are measured once for all recipes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("plans"))
        assert jt_pocket(["draw", "data/pocket", "--pictures", "2", "--videos", "2"]) == 0
        patch.setattr(measure, "codec_pass", _once(measure.codec_pass, parts_of))
        patch.setattr(measure, "text_pass", _once(measure.text_pass, lambda network: [network]))
        yield


def _once(run: Callable[..., Ledger], modules: Callable) -> Callable[..., Ledger]:
    known: dict[str, Ledger] = {}

    def runs(machine, network, *shapes: Any, **options: Any) -> Ledger:
        configs = [getattr(module, "config", None) for module in modules(network)]
        if None in configs:
            return run(machine, network, *shapes, **options)
        tiled = [vars(module).get("use_tiling") for module in modules(network)]
        key = repr((machine.gpu, machine.dtype, configs, tiled, shapes, options))
        if key not in known:
            known[key] = run(machine, network, *shapes, **options)
        return known[key]

    return runs


@pytest.mark.slow  # networks of true size are run without numbers
@pytest.mark.parametrize("recipe", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_shipped_recipe_is_planned_and_its_parts_are_the_total(recipe, capsys):
    status = cli.plan([str(recipe), "--json"])
    said = capsys.readouterr()
    assert status == 0, said.err
    plan, table = json.loads(said.out), read_table(recipe)

    assert plan["parts"].keys() >= {"text encoder", "codec", "denoiser"}
    assert plan["adapters"].keys() == table["adapter"].keys()
    numbers = {name: adapter["parameters"] for name, adapter in plan["adapters"].items()}
    assert plan["trained"] == {
        name: sum(numbers[adapter] for adapter in _trained(stage))
        for name, stage in table["stage"].items()
    }

    phases = {phase["name"]: phase for phase in plan["estimate"]["phases"]}
    for phase in phases.values():
        assert all(size >= 0 for size in phase["causes"].values())
        assert phase["allocated"] == sum(phase["causes"].values())
        assert phase["needed"] == phase["allocated"] + phase["allowance"]
    worst = max(phases.values(), key=lambda phase: phase["needed"])
    assert (plan["worst"], plan["needed"]) == (worst["name"], worst["needed"])

    steps = plan["steps"]
    branches = {f"stage.{s}.branch.{b}" for s, b in _branches(table)}
    assert {step["place"].partition(" on ")[0] for step in steps} == branches
    assert {f"train {step['place']}" for step in steps} <= phases.keys()
    for step in steps:
        assert phases[f"train {step['place']}"]["causes"]["weights"] > 0
        assert min(step["forward"], step["backward"], step["seconds"]) > 0
        again = step["recompute"] > 0
        assert again == table.get("engine", {}).get("gradient_checkpointing", False)
    assert all(size >= 0 for size in plan["disk"].values())


def _trained(stage: dict[str, Any]) -> set[str]:
    branches = stage["branch"].values()
    return {name for each in branches for name in each.get("trains", each["adapters"])}


def _branches(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, stage in table["stage"].items():
        for branch in stage["branch"]:
            yield name, branch
