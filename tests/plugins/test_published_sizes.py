"""Adapters of the recipes on networks of the published sizes, which have no weights here."""

from functools import cache
from pathlib import Path

import pytest
import torch

from jtcore.adapter import Adapter
from jtcore.model import attach_adapters
from jtcore.plugins import Plugins, load_plugins
from jtcore.recipe import build_recipe
from jtcore.structure import structure_component
from jtcore.tables import read_table
from jtcore.types import Backbone
from jtplugins.adapters.stage_blender import Blender

RECIPES = Path(__file__).parents[2] / "recipes"
SIZES = {  # of the backbones that recipes name
    "cogvideox2b": {"kind": "cogvideox", "config": "2b"},
    "cogvideox5b": {"kind": "cogvideox", "config": "5b"},
    "wan1.3b": {"kind": "wan", "config": "1.3b"},
    "wan14b": {"kind": "wan", "config": "14b"},
    "modelscope": {"kind": "modelscope"},
    "zeroscope": {"kind": "zeroscope"},
}


@cache
def plugins() -> Plugins:
    return load_plugins()


@cache
def bare(size: str) -> Backbone:
    table = SIZES[size] | {"weights": "random"}
    backbone = structure_component("backbones", table, plugins())
    return backbone.spec.load(torch.device("meta"), torch.float32)


def attached(recipe: str, size: str = "") -> dict[str, Adapter]:
    """The adapters of a recipe, but for its word's, on its own backbone's size or another."""
    table = read_table(RECIPES / f"{recipe}.toml")
    adapters = build_recipe(table, plugins()).adapter
    beside = {name: each for name, each in adapters.items() if each.kind != "token"}
    return attach_adapters(beside, bare(size or recipe.partition("_")[2]), 0)


def millions(adapter: Adapter) -> float:
    return round(adapter.reach.parameters / 1e6, 2)


@pytest.mark.parametrize(
    ("size", "blocks", "groups"),
    [
        ("cogvideox5b", 42, 7),
        ("cogvideox2b", 30, 6),
        ("wan1.3b", 30, 6),
        ("zeroscope", 33, 11),
    ],
)
def test_dualreals_groups_divide_the_published_blocks(size, blocks, groups):
    assert len(bare(size).blocks()) == blocks
    controller = attached(f"dualreal_{size}")["controller"]
    assert isinstance(controller, Blender)
    assert (controller.head.out_features, controller.per_group) == (groups, blocks // groups)


@pytest.mark.parametrize(
    ("size", "of", "identity", "motion"),
    [
        ("cogvideox5b", "cogvideox5b", 33.29, 297.79),  # computed of the released code
        ("cogvideox2b", "cogvideox2b", 14.9, 132.9),
        ("wan1.3b", "wan1.3b", 11.9, 106.4),
        ("wan14b", "wan1.3b", 52.8, 472.7),
    ],
)
def test_dualreals_adapters_are_as_large_as_the_released_ones(size, of, identity, motion):
    table = read_table(RECIPES / f"dualreal_{of}.toml")
    del table["adapter"]["controller"]
    adapters = {
        name: structure_component("adapters", each, plugins())
        for name, each in table["adapter"].items()
    }
    found = attach_adapters(adapters, bare(size), 0)
    assert millions(found["identity"]) == pytest.approx(identity, abs=0.051)
    assert millions(found["motion"]) == pytest.approx(motion, abs=0.051)


def test_dualreals_controller_and_all_of_it_are_as_large_as_the_released_ones():
    found = attached("dualreal_cogvideox5b")
    assert millions(found["controller"]) == 4.53
    assert round(sum(each.reach.parameters for each in found.values()) / 1e6, 2) == 335.61
    of_pictures = [w for n, w in found["motion"].named_parameters() if ".condition." in n]
    assert round(sum(weight.numel() for weight in of_pictures) / 1e6, 1) == 264.5


@pytest.mark.parametrize(
    ("size", "identity", "motion"),
    [("modelscope", 12.41, 77.97), ("wan1.3b", 5.9, 106.4), ("cogvideox5b", 16.6, None)],
)
def test_dreamvideos_adapters_are_as_large_as_the_released_ones(size, identity, motion):
    found = attached(f"dreamvideo_{size}")
    assert millions(found["identity"]) == pytest.approx(identity, abs=0.051)
    if motion is not None:
        assert millions(found["motion"]) == pytest.approx(motion, abs=0.051)
