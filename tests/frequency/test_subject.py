"""What is looked into: adapters as their recipe has them, shown what it shows them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jtcore.frequency.adapters import strengths
from jtcore.frequency.asked import askable
from jtcore.frequency.command import low_rank
from jtcore.frequency.losses import Settings, gradients
from jtcore.frequency.subject import Subject
from jtcore.frequency.trajectory import denoised


@pytest.fixture
def shown(pocket: dict, data: Path) -> dict:
    """A recipe whose adapter is conditioned on a picture."""
    picture, *_ = sorted((data / "subject").glob("*.png"))
    pocket["image_encoder"] = {"kind": "colours"}
    pocket["data"]["motion"]["reference"] = "frame"
    pocket["sample"]["reference"] = {"picture": str(picture)}
    bottleneck = {"kind": "bottleneck", "targets": "visual", "reference_width": 64}
    pocket["adapter"] = {"joint": bottleneck}
    branch = pocket["stage"]["joint"]["branch"]["joint"]
    branch |= {"data": ["motion"], "losses": {"motion": {"kind": "diffusion"}}}
    return pocket


@pytest.fixture
def opened(write_recipe: Callable[..., Path]) -> Callable[[dict], Subject]:
    return lambda table: Subject(str(write_recipe(table)), say=lambda told: None)


def test_gradients_are_those_of_adapters_that_are_shown_their_pictures(shown, opened):
    found = []
    for reference in ("frame", shown["sample"]["reference"]["picture"]):
        shown["data"]["motion"]["reference"] = reference
        subject = opened(shown)
        asked = askable(subject, ["diffusion"], "diffusion", ())
        told = gradients(subject, "motion", asked, Settings(draws=3, own=2))["diffusion"]
        found.append(told.of_weights)
    assert not np.allclose(found[0], found[1], rtol=1e-3)


def test_samples_are_shown_the_recipes_picture(shown, opened):
    subject = opened(shown)
    with torch.no_grad():
        for weight in subject.model.adapters["joint"].parameters():
            weight.add_(0.1)  # it begins with no effect
    finals = []
    for strength in (1.0, 0.0):
        shown["sample"]["reference"]["strength"] = strength
        other = opened(shown)
        other.model.adapters["joint"].load_state_dict(subject.model.adapters["joint"].state_dict())
        finals.append(denoised(other, 1, [0], on=True)[2])
    assert not torch.allclose(*finals, atol=1e-3)


def test_what_is_no_low_rank_update_is_said_and_left_out(shown, opened, capsys):
    shown["adapter"]["plain"] = {"kind": "lora", "targets": "visual", "rank": 1}
    shown["stage"]["joint"]["branch"]["joint"]["adapters"] = ["joint", "plain"]
    assert list(low_rank(opened(shown))) == ["plain"]
    told = capsys.readouterr().out
    assert told.startswith("adapter.joint: ")
    assert told.endswith("; so nothing is told of its rank\n")


def test_adapters_begin_as_the_recipe_says(pocket, opened, trained):
    path = trained / "adapters" / "joint.safetensors"
    pocket["initial"] = {"joint": str(path)}
    begun, left = opened(pocket).model, Subject(str(trained), say=lambda told: None).model
    for name, weight in left.adapters["joint"].state_dict().items():
        assert torch.equal(begun.adapters["joint"].state_dict()[name], weight)


def test_strengths_are_of_the_adapters_that_are_on_with_a_table(pocket, opened):
    pocket["adapter"]["other"] = pocket["adapter"]["joint"]
    losses = {"all": {"kind": "diffusion"}}
    branch = {"data": ["motion"], "adapters": ["other"], "losses": losses}
    pocket["stage"]["joint"]["branch"] = {"two": branch} | {
        "one": {"data": ["subject"], "adapters": ["joint"], "losses": losses}
    }
    found = list(strengths(opened(pocket), ["subject", "motion"], [500]))
    assert [(adapter, stream) for adapter, stream, _, _ in found] == [
        ("joint", "subject"),
        ("other", "motion"),
    ]
