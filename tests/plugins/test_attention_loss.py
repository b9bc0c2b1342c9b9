"""MotionBooth's loss on attention, against its equation, and in a run on pocket."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from jtcore import JtError, cli
from jtcore.types import Noised, Part
from jtplugins.losses.attention import Attention

SHAPE = (2, 4, 1, 8, 8)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def part(mask: Tensor | None) -> Part:
    return Part(torch.zeros(SHAPE), torch.zeros(2, 3, 1), ("a", "b"), "subject", mask)


def cost(maps: dict[str, Tensor], mask: Tensor | None) -> Tensor:
    noised = Noised(torch.zeros(SHAPE), torch.zeros(2), torch.zeros(SHAPE))
    return Attention("wug")(torch.zeros(SHAPE), noised, part(mask), torch.Generator(), maps)


def halved(mask: Tensor) -> Tensor:
    """Bilinear to half the size: each cell's centre is between four."""
    return (
        mask[..., ::2, ::2] + mask[..., 1::2, ::2] + mask[..., ::2, 1::2] + mask[..., 1::2, 1::2]
    ) / 4


def entropy(attended: Tensor, wanted: Tensor) -> Tensor:
    each = wanted * attended.log() + (1 - wanted) * (1 - attended).log()
    return -each.flatten(1).mean(1)


def test_it_is_the_cross_entropy_of_the_mean_over_layers_with_the_resized_mask():
    mask = (draw(2, 1, 1, 8, 8, seed=1) > 0.5).double()
    maps = {name: draw(2, 1, 4, 4, seed=seed) for seed, name in enumerate("abc", 2)}
    mean = sum(maps.values()) / 3
    torch.testing.assert_close(
        cost(maps, mask), entropy(mean, halved(mask)[:, 0]), check_dtype=False
    )


def test_layers_of_other_sizes_count_by_their_number():
    mask = (draw(2, 1, 1, 8, 8, seed=1) > 0.5).double()
    maps = {
        "a": draw(2, 1, 4, 4, seed=2),
        "b": draw(2, 1, 4, 4, seed=3),
        "c": draw(2, 1, 8, 8, seed=4),
    }
    small, large = (maps["a"] + maps["b"]) / 2, maps["c"]
    expected = (2 * entropy(small, halved(mask)[:, 0]) + entropy(large, mask[:, 0])) / 3
    torch.testing.assert_close(cost(maps, mask), expected, check_dtype=False)


def test_its_gradient_agrees_with_finite_differences():
    mask = (draw(2, 1, 1, 8, 8, seed=1) > 0.5).double()
    a, b = (draw(2, 1, 4, 4, seed=seed).mul(0.8).add(0.1).requires_grad_() for seed in (2, 3))
    assert torch.autograd.gradcheck(lambda a, b: cost({"a": a, "b": b}, mask), (a, b))


def test_it_falls_when_attention_moves_into_the_mask_and_a_sample_touches_no_other():
    mask = torch.zeros(2, 1, 1, 8, 8)
    mask[..., :4] = 1
    flat, inside = torch.full((2, 1, 4, 4), 0.1), torch.full((2, 1, 4, 4), 0.1)
    inside[1, ..., :2], inside[1, ..., 2:] = 0.4, 0.01
    before, after = cost({"a": flat}, mask), cost({"a": inside}, mask)
    assert after[1] < before[1] and after[0] == before[0]


def test_a_caption_that_lost_the_phrase_costs_nothing():
    mask = torch.ones(2, 1, 1, 8, 8)
    maps = torch.full((2, 1, 4, 4), 0.5)
    maps[1] = 0
    assert cost({"a": maps}, mask).tolist() == [pytest.approx(0.693147, abs=1e-6), 0]


def test_a_missing_mask_is_said():
    with pytest.raises(
        JtError, match=r"^data\.subject: has no masks, but an attention loss is asked"
    ):
        cost({"a": torch.full((2, 1, 4, 4), 0.5)}, None)


@pytest.fixture
def on_pocket(table, data: Path, plugin_folder) -> dict:
    """A run on pictures and masks by the loss on attention alone, which trains queries and keys."""
    table["backbone"] = {"kind": "pocket"}
    table["plugins"]["folders"].append(str(plugin_folder(teller=TELLER)))
    table["data"]["subject"] |= {"masks": str(data / "masks"), "batch": 2}
    table["adapter"]["joint"] |= {"kind": "lora", "targets": "attention_qkv", "dropout": 0.0}
    table["adapter"]["joint"]["rank"] = 8
    lost = {"attended": {"kind": "attention", "phrase": "sks", "on": "image"}}
    stage = table["stage"]["joint"]
    stage |= {"steps": 12, "lr": 0.03}
    stage["branch"]["joint"] |= {"data": ["subject"], "losses": lost}
    table["sample"] |= {"prompts": ["sks"]}
    return table


TELLER = """
from jtcore import hookimpl

@hookimpl
def jt_step_finished(run, scalars):
    with (run.folder / "told.txt").open("a") as file:
        file.write(f"{scalars['stage.joint.branch.joint.losses.attended']!r}\\n")
"""


@pytest.fixture
def losses(on_pocket, jt_run):
    """Of each step of a run."""

    def run(**engine) -> list[float]:
        on_pocket["engine"] = {"threads": 1, **engine}
        name = "_".join(["run", *engine])
        return [*map(float, (jt_run(on_pocket, name=name) / "told.txt").read_text().split())]

    return run


def test_training_by_it_moves_attention_into_the_mask_exactly_alike_when_checkpointed(losses):
    found = losses()
    assert min(found) > 0
    assert sum(found[-3:]) < 0.9 * sum(found[:3])
    assert losses(gradient_checkpointing=True) == found


def test_a_phrase_that_a_caption_has_not_is_told_before_training(on_pocket, write_recipe, capsys):
    lost = on_pocket["stage"]["joint"]["branch"]["joint"]["losses"]["attended"]
    lost |= {"phrase": "ball", "cells": 3}
    assert cli.run([str(write_recipe(on_pocket)), "--check"]) == 2
    told = capsys.readouterr().err
    place = "stage.joint.branch.joint.losses.attended: "
    assert f"{place}the prompt 'a sks " in told and "does not have the phrase 'ball'" in told
    assert f"{place}no attention to the text is called '*' with tokens of 3 latent rows" in told
