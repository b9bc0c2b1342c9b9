"""Validation: losses on the same draws, adapters off and on, against plain arithmetic."""

import pytest
import torch
from torch import Tensor, nn

from jtcore.adapter import Adapter
from jtcore.engine import Engine
from jtcore.model import Model
from jtcore.recipe import Validation
from jtcore.rng import generator
from jtcore.settings import EngineSettings
from jtcore.stream import Item, Stream
from jtcore.validation import validate

TEXTS = {"a wug": torch.tensor([[0.25, 0.75]])}
SHAPE = (1, 3, 1, 2, 2)
SHIFT = 0.5


class Shift(Adapter):
    """Adds a constant to what a layer answers."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        layer.register_forward_hook(self.shift)

    def scalars(self) -> dict[str, Tensor]:
        return {"shift": torch.tensor(SHIFT)}

    def shift(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        return None if self.current is None else output + self.current.scale * SHIFT


@pytest.fixture
def model(plugins) -> Model:
    """It predicts 0, and SHIFT with its adapter."""
    backbone = plugins.find("backbones", "tiny")().load(torch.device("cpu"), torch.float32)
    nn.init.zeros_(backbone.denoiser.outer.weight)
    nn.init.zeros_(backbone.denoiser.outer.bias)
    adapters = {"shift": Shift(backbone.denoiser.outer)}
    return Model(backbone, adapters, TEXTS, Engine(EngineSettings(device="cpu")))


def clips(files: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(5)
    return [torch.randn(SHAPE, generator=rng) for _ in range(files)]


def target(clip: Tensor, draw: int) -> Tensor:
    """What `tiny` is to predict of a draw with the validation's seed 4: alike for every file."""
    rng = generator(4, draw, "validation", "held_out")
    torch.rand(1, generator=rng)  # the time
    return (torch.randn(SHAPE, generator=rng) - clip).double()


def validated(model: Model, files: int, scale: float) -> dict[str, float]:
    items = [Item("a wug", clip, None) for clip in clips(files)]
    streams = {"held_out": Stream("held_out", items, 1, torch.device("cpu"))}
    settings = Validation(("held_out",), draws=3, seed=4)
    return validate(settings, model, {"shift": scale}, streams)["held_out"]


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_standard_error_of_the_change_is_over_files(model, scale):
    found = validated(model, 2, scale)

    targets = [[target(clip, draw) for draw in range(3)] for clip in clips(2)]
    base = torch.stack([torch.stack([t.square().mean() for t in each]).mean() for each in targets])
    shifted = [[(scale * SHIFT - t).square().mean() for t in each] for each in targets]
    adapted = torch.stack([torch.stack(each).mean() for each in shifted])
    first, second = (adapted - base).tolist()
    assert found.pop("adapters") == {"shift.shift": pytest.approx(SHIFT)}
    assert found == pytest.approx(
        {
            "base": base.mean().item(),
            "adapted": adapted.mean().item(),
            "change": (first + second) / 2,
            "change_standard_error": abs(first - second) / 2,  # s / sqrt(2), of two
        },
        abs=1e-6,
    )
    assert found["change_standard_error"] > 1e-3


def test_an_adapter_that_is_off_changes_nothing(model):
    found = validated(model, 2, 0.0)

    assert found["base"] == found["adapted"] > 0
    assert (found["change"], found["change_standard_error"]) == (0, 0)
