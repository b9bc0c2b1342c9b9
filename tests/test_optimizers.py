"""Optimizers that keep their state in 8 bits, or on the host."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from jtcore.checkpoint import (
    Checkpoint,
    Position,
    load_optimizer_state,
    newest_checkpoint,
    optimizer_state,
    save_checkpoint,
)
from jtcore.optimizers import HostAdamW, make_optimizer
from jtcore.recipe import Stage

STAGE = Stage(steps=6, lr=0.01, branch={"joint": None}, weight_decay=0.1)
SHAPES = ((64, 100), (10,), (7, 30, 50))  # two with 4,096 numbers or more, one with fewer


def drawn(device: str = "cpu") -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=rng).to(device)) for shape in SHAPES]


def train(optimizer: Optimizer, first: int, end: int) -> None:
    """Steps with gradients and a rate of their own; every other one leaves a parameter out."""
    parameters = optimizer.param_groups[0]["params"]
    for step in range(first, end):
        rng = torch.Generator().manual_seed(step)
        optimizer.param_groups[0]["lr"] = STAGE.lr / (step + 1)
        for index, parameter in enumerate(parameters):
            gradient = torch.randn(parameter.shape, generator=rng).to(parameter.device)
            parameter.grad = None if index == 1 and step % 2 else gradient
        optimizer.step()


def trained(kept: str | None, device: str = "cpu") -> Sequence[nn.Parameter]:
    parameters = drawn(device)
    train(make_optimizer(STAGE, parameters, kept), 0, 6)
    return parameters


def test_a_state_on_the_host_is_the_same_adamw():
    for found, expected in zip(trained("host"), trained(None), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_state_of_a_gpus_weights_is_on_the_host():
    parameters = drawn("cuda")
    optimizer = make_optimizer(STAGE, parameters, "host")
    train(optimizer, 0, 6)
    for found, expected in zip(parameters, trained(None), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-6)
    states = [each for entries in optimizer.state.values() for each in entries.values()]
    assert {state.device.type for state in states} == {"cpu"}


def test_a_state_of_8_bits_is_nearly_adamws():
    plain = trained(None)
    for found, expected, before in zip(trained("8bit"), plain, drawn(), strict=True):
        moved = (expected - before).norm()
        assert (found - expected).norm() < 0.05 * moved


def test_a_state_of_8_bits_takes_a_quarter_and_small_tensors_keep_32():
    large, small, _ = drawn()
    optimizer = make_optimizer(STAGE, [large, small], "8bit")
    train(optimizer, 0, 1)
    state = optimizer.state_dict()["state"]
    kinds = {index: entries["state1"].dtype for index, entries in state.items()}
    assert kinds == {0: torch.uint8, 1: torch.float32}
    taken = sum(value.nbytes for value in state[0].values() if isinstance(value, torch.Tensor))
    assert taken == large.numel() * 2 + 2 * 4 * large.numel() // 256  # and the scales of blocks


@pytest.mark.parametrize("kept", [None, "host", "8bit"])
def test_a_state_comes_back_from_a_checkpoint_to_the_bit(kept, tmp_path):
    straight = trained(kept)
    first = drawn()
    optimizer = make_optimizer(STAGE, first, kept)
    train(optimizer, 0, 3)
    tensors, values = optimizer_state(optimizer)
    named = {f"optimizer/{name}": tensor for name, tensor in tensors.items()}
    save_checkpoint(tmp_path, Checkpoint(Position("joint", 3, 3), named, values), keep=1)

    checkpoint = newest_checkpoint(tmp_path, print)
    again = [nn.Parameter(parameter.detach().clone()) for parameter in first]
    resumed = make_optimizer(STAGE, again, kept)
    load_optimizer_state(resumed, checkpoint.of("optimizer"), checkpoint.values)
    train(resumed, 3, 6)

    for found, expected in zip(again, straight, strict=True):
        assert torch.equal(found, expected)


def test_a_step_without_gradients_changes_nothing():
    parameters = drawn()
    optimizer = HostAdamW(parameters, 0.1, (0.9, 0.999), 1e-8, 0.1)
    optimizer.step()
    for found, before in zip(parameters, drawn(), strict=True):
        assert torch.equal(found, before)


def test_the_plain_optimizer_is_torchs():
    assert type(make_optimizer(STAGE, drawn(), None)) is AdamW
