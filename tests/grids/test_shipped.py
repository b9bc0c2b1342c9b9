"""Grids of the papers, as they are shipped: what they say, and that every run is a recipe."""

import re
from pathlib import Path

import pytest

from jtcore.grids.grid import Declared, take_grid
from jtcore.recipe import Recipe, build_recipe
from jtcore.tables import read_table

GRIDS = sorted((Path(__file__).parents[2] / "ablations").glob("*.toml"))
every_grid = pytest.mark.parametrize("path", GRIDS, ids=[path.stem for path in GRIDS])


def declared(path: Path) -> Declared:
    return take_grid(read_table(path), path)


def is_pocket(path: Path) -> bool:
    grid = declared(path)
    return grid.recipe(grid.grid.trials[0])["backbone"]["kind"] == "pocket"


REAL = [path for path in GRIDS if not is_pocket(path)]
RUNS = {  # variants by axes by seeds
    "dualreal_cogvideox5b": 7 * 3,
    "jointtuner_cogvideox5b": 6 * 3,
    "jointtuner_zeroscope": 7 * 2 * 3,
    "methods_cogvideox2b": 5 * 3,
    "methods_cogvideox5b": 11 * 3,
    "methods_modelscope": 7 * 3,
    "methods_wan1.3b": 9 * 3,
    "methods_zeroscope": 10 * 3,
    "shifts_backbones": 2 * 11 * 3,
}


@every_grid
def test_a_header_tells_what_a_grid_shows_needs_and_costs(path):
    header = path.read_text().split("\nbase =")[0].split("\ntitle =")[0]
    assert re.search(r"^# Needs: ", header, re.MULTILINE)
    cost = re.search(r"^# Cost: (\d+) runs", header, re.MULTILINE)
    assert cost and int(cost[1]) == len(declared(path).grid.trials)


def test_the_papers_grids_have_these_runs():
    assert {path.stem: len(declared(path).grid.trials) for path in REAL} == RUNS


@pytest.fixture(scope="module")
def recipes(plugins) -> dict[str, dict[str, Recipe]]:
    """Of every real grid, those of its first seed."""
    found = {}
    for path in REAL:
        grid = declared(path)
        found[path.stem] = {
            name: build_recipe(grid.recipe(trials[0]), plugins)
            for name, trials in grid.groups.items()
        }
    return found


def shown(recipe: Recipe) -> dict[str, float]:
    """How many samples of each stream a whole run draws, in expectation."""
    found: dict[str, float] = {}
    for stage in recipe.stage.values():
        chosen = 1 / len(stage.branch) if stage.select == "one" else 1
        for branch in stage.branch.values():
            for name in branch.data:
                drawn = stage.steps * chosen * recipe.data[name].batch
                found[name] = found.get(name, 0) + drawn
    return found


@pytest.mark.parametrize(
    "grid",
    ["jointtuner_zeroscope", "jointtuner_cogvideox5b", "dualreal_cogvideox5b", "shifts_backbones"],
)
def test_what_is_compared_was_shown_as_much(grid, recipes):
    """Parts are compared at as many steps and samples of each kind as the full method has."""
    amounts: dict[str, list] = {}
    for recipe in recipes[grid].values():
        amounts.setdefault(recipe.backbone.kind, []).append((recipe.steps, shown(recipe)))
    for found in amounts.values():
        assert all(each == found[0] for each in found)


def trained(recipe: Recipe) -> int:
    from jtcore.planner.networks import build

    return sum(adapter.reach.parameters for adapter in build(recipe).adapters.values())


def test_parts_of_jointtuner_have_as_many_weights_but_for_gates(recipes):
    on_zeroscope = recipes["jointtuner_zeroscope"].items()
    counts = {name: trained(each) for name, each in on_zeroscope if name.endswith("-zeroscope")}
    full = counts["full-zeroscope"]
    assert all(abs(count / full - 1) < 0.02 for count in counts.values())


def test_groups_of_dualreal_divide_its_blocks(recipes):
    groups = {
        name: recipe.adapter["controller"].spec.groups
        for name, recipe in recipes["dualreal_cogvideox5b"].items()
        if "controller" in recipe.adapter
    }
    assert groups == {
        "full": 7, "one_group": 1, "two_groups": 2, "all_blocks": 42, "as_in_the_paper": 7
    }  # fmt: skip
    assert set(recipes["dualreal_cogvideox5b"]) - groups.keys() == {
        "no_controller",
        "separate",
    }


def test_methods_on_a_backbone_are_on_that_backbone(recipes):
    for name, found in recipes.items():
        if name.startswith("methods_"):
            weights = {recipe.backbone.spec.weights for recipe in found.values()}
            assert len(weights) == 1, name
