"""Customizing Motion's recipes: what they train, and beside what."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jtcore.plugins import load_plugins
from jtcore.recipe import Recipe, build_recipe
from jtcore.tables import change, read_table
from jtplugins.backbones.wan import Wan
from jtplugins.backbones.zeroscope import ZeroScope

RECIPES = Path(__file__).parents[1] / "recipes"
META = torch.device("meta")


def recipe_of(name: str) -> Recipe:
    table = change(read_table(RECIPES / f"{name}.toml"), ['sample.prompts=["a cat"]'])
    return build_recipe(table, load_plugins())


@pytest.mark.parametrize(
    ("name", "spec", "tensors", "millions"),
    [
        ("newmove_zeroscope", ZeroScope("random"), 826, 570.9),
        ("newmove_modelscope", ZeroScope("random"), 826, 570.9),
        # to_k and to_v of the text with biases; of the video all four and two norms
        ("newmove_wan1.3b", Wan("random", config="1.3b"), 30 * (4 + 10), 141.6 + 283.4),
    ],
)
def test_recipes_train_what_the_paper_does_or_stands_for_it(name, spec, tensors, millions):
    adapter = recipe_of(name).adapter["motion"].spec
    weights = adapter.attach(spec.load(META, torch.float32), {}).state_dict()
    assert len(weights) == tensors
    found = sum(weight.numel() for weight in weights.values()) / 1e6
    assert found == pytest.approx(millions, abs=0.11)


@pytest.mark.parametrize("name", ["zeroscope", "modelscope", "cogvideox5b", "pocket"])
def test_both_streams_are_trained_at_noisy_times_and_the_others_weigh_half(name):
    branches = recipe_of(f"newmove_{name}").stage["motion"].branch
    assert {branch.times.skew for branch in branches.values()} == {0.5}
    assert branches["motion"].losses["motion"].weight == 1.0
    assert branches["related"].losses["related"].weight == 0.5


def test_wan_s_own_shift_stands_in_the_place_of_the_skew():
    branches = recipe_of("newmove_wan1.3b").stage["motion"].branch
    assert all(branch.times.skew == 0 for branch in branches.values())


def regularised(table: dict, weight: float | None) -> dict:
    """Weights that learn `motion`, beside another stream whose loss has this weight, or without."""
    changed = deepcopy(table)
    changed["adapter"] = {"denoiser": {"kind": "weights", "targets": "all"}}
    changed["data"]["related"] = changed["data"]["motion"] | {"prompt": "a ball moves"}
    loss = {"kind": "diffusion"}
    branch = {"data": ["motion"], "adapters": ["denoiser"], "times": {"skew": 0.5}}
    branches = {"motion": branch | {"losses": {"motion": loss}}}
    if weight is not None:
        losses = {"related": loss | {"weight": weight}}
        branches["related"] = branch | {"data": ["related"], "losses": losses}
    changed["stage"] = {"motion": {"steps": 10, "lr": 0.01, "branch": branches}}
    del changed["sample"], changed["metric"]
    return changed


def test_at_weight_0_the_regularisation_is_as_if_it_were_not_there(table, jt_run):
    found = {
        str(weight): load_file(
            jt_run(regularised(table, weight), "--quiet", name=f"weight-{weight}")
            / "adapters/denoiser.safetensors"
        )
        for weight in (None, 0.0, 0.5)
    }
    alone, nothing, half = found.values()
    assert alone.keys() == nothing.keys() and len(alone) == 4
    assert all(torch.equal(alone[name], nothing[name]) for name in alone)
    assert not any(torch.equal(alone[name], half[name]) for name in alone)


@pytest.mark.parametrize("name", ["modelscope", "zeroscope", "pocket"])
def test_an_absorber_is_frozen_while_the_motion_is_learned_and_off_when_it_is_sampled(name):
    """Customize-A-Video."""
    recipe = recipe_of(f"customizeavideo_{name}")
    stages = list(recipe.stage)
    assert stages.index("absorb") < stages.index("motion")
    assert recipe.stage["absorb"].trained == ("absorber",)
    (branch,) = recipe.stage["motion"].branch.values()
    assert branch.adapters == ("absorber", "motion") and branch.trained == ("motion",)
    assert recipe.sample.scales == {"absorber": 0.0}
    frames = recipe.stage["absorb"].branch["frames"].data
    assert {recipe.data[each].medium for each in frames} == {"image"}
