"""Sanity controls of the shift losses: what they do, and do not, to an idealised training.

Parameters are coordinates of the prediction in an orthonormal basis, of which the first H W span
what all channels and frames share. Only the optimizer can tell the losses apart there.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from jtcore.noise import AXES
from jtcore.types import Noised, Part
from jtplugins.losses.ait import AiT
from jtplugins.losses.ait_marginal import AiTMarginal
from jtplugins.losses.ait_project import AiTProject
from jtplugins.losses.diffusion import Diffusion
from jtplugins.losses.shift import Shift

SHAPE = (1, 2, 8, 2, 3)  # (B, C, F, H, W)
STILL, ALL = 6, 96
STEPS, RATE = 400, 1.5e-3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def told(target: Tensor) -> tuple[Noised, Part]:  # (B, C, F, H, W)
    part = Part(target, torch.zeros(len(target), 1, 1), ("",) * len(target), "motion")
    return Noised(target, torch.zeros(len(target)), target), part


def basis() -> Tensor:  # (ALL, ALL), orthonormal columns
    spread = torch.eye(STILL).repeat(ALL // STILL, 1)
    other = torch.randn(ALL, ALL - STILL, generator=seeded(1))
    return torch.linalg.qr(torch.cat([spread, other], 1))[0]


def left(loss, optimizer=torch.optim.AdamW, rate: float = RATE) -> tuple[float, float]:
    """Which share of the squared error is left in the still, and in the other coordinates."""
    columns, rng = basis(), seeded(2)
    wanted = torch.randn(ALL, generator=rng).sign()
    target, shifts = (columns @ wanted).view(SHAPE), seeded(3)
    coordinates = torch.nn.Parameter(torch.zeros(ALL))
    step = optimizer([coordinates], lr=rate)
    for _ in range(STEPS):
        step.zero_grad()
        loss((columns @ coordinates).view(SHAPE), *told(target), shifts).sum().backward()
        step.step()
    error = (coordinates.detach() - wanted).square()
    return error[:STILL].mean().item(), error[STILL:].mean().item()


@pytest.fixture(scope="module")
def plain() -> tuple[float, float]:
    return left(Diffusion())


def test_without_a_shift_nothing_is_favoured(plain):
    still, moving = plain
    assert 0.1 < still < 0.5 and still == pytest.approx(moving, rel=0.01)


def test_the_channel_temporal_shift_slows_what_is_still_and_leaves_the_rest(plain):
    still, moving = left(AiT())
    assert still > 2 * plain[0]
    assert moving == pytest.approx(plain[1], rel=0.1)


def test_independent_noise_does_not_favour_motion(plain):
    still, moving = left(Shift(shared=()))
    assert still == pytest.approx(moving, rel=0.25)


@pytest.mark.parametrize("shared", [(), ("frame",), ("channel", "frame"), ("row", "column"), AXES])
def test_a_shift_of_the_target_is_one_of_the_prediction_turned_around(shared):
    target, prediction = (torch.randn(50, *SHAPE[1:], generator=seeded(n)) for n in (1, 2))
    turned = 2 * target - prediction  # the same residual with the other sign
    noised, part = told(target)
    on_target = Shift(shared, applied_to="target")(prediction, noised, part, seeded(3))
    on_prediction = Shift(shared)(turned, noised, part, seeded(3))
    torch.testing.assert_close(on_target, on_prediction)


@pytest.mark.parametrize("shared", [(), ("channel", "frame"), AXES])
def test_a_shift_of_the_target_has_the_distribution_of_one_of_the_prediction(shared):
    """By Kolmogorov and Smirnov: of the loss, and of one gradient, at one and the same error."""
    many = 4000
    target = torch.randn(SHAPE, generator=seeded(1)).expand(many, *SHAPE[1:])
    error = 0.5 * torch.randn(SHAPE, generator=seeded(2)).expand(many, *SHAPE[1:])
    noised, part = told(target)
    samples = []
    for seed, applied_to in ((3, "prediction"), (4, "target")):
        prediction = (target + error).requires_grad_()
        values = Shift(shared, applied_to=applied_to)(prediction, noised, part, seeded(seed))
        values.sum().backward()
        samples.append((values.detach().numpy(), prediction.grad[:, 1, 3, 0, 2].numpy()))
    for one, other in zip(*samples, strict=True):
        assert statistic(one, other) < 1.63 * (2 / many) ** 0.5  # at 1%


def statistic(one: np.ndarray, other: np.ndarray) -> float:
    places = np.sort(np.concatenate([one, other]))
    shares = (np.searchsorted(np.sort(each), places, "right") / len(each) for each in (one, other))
    return float(np.abs(next(shares) - next(shares)).max())


def test_by_plain_gradient_descent_the_shift_does_nothing_and_projections_do():
    def descend(loss) -> tuple[float, float]:
        return left(loss, torch.optim.SGD, ALL / 1000)  # of which each step does 1 / 500

    plain = descend(Diffusion())
    assert descend(AiT(std=0.1)) == pytest.approx(plain, rel=0.1)
    still, moving = descend(AiTProject())
    assert still == pytest.approx(1) and moving == pytest.approx(plain[1], rel=1e-4)
    still, moving = descend(AiTMarginal(std=0.125, residual_std=0.5))  # half the weight
    assert still == pytest.approx(plain[0] ** 0.5, rel=1e-2)
    assert moving == pytest.approx(plain[1], rel=1e-4)
