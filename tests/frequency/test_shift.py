"""Latents under shifts, by formulas."""

import pytest
import torch

from jtcore.diffusion import Levels, noised
from jtcore.frequency.shift import SHARED, shifted_latents
from jtcore.noise import draw_shared
from jtcore.spectrum import spectrum

SIGNAL, SIGMA = 0.8, 0.6


class Schedule:
    """One level of noise"""

    def __init__(self, prediction: str) -> None:
        self.prediction = prediction

    def levels(self, times: torch.Tensor) -> Levels:
        whole = torch.ones(len(times), dtype=torch.float64)
        sum_to_one = self.prediction == "flow"
        return Levels(whole * (1 - SIGMA if sum_to_one else SIGNAL), whole * SIGMA)


def draw() -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 3, 4, 5, 6, generator=rng, dtype=torch.float64) for _ in range(3))


@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
def test_noise_that_is_shifted_stands_for_these_clean_latents(prediction):
    clean, noise, shift = draw()
    schedule = Schedule(prediction)
    found = shifted_latents(clean, schedule, 500, shift, noise, "noise")
    level = schedule.levels(torch.zeros(2))
    seen = noised(prediction, clean, noise, torch.zeros(2), level).latents
    signal, sigma = level.over(clean)
    torch.testing.assert_close(signal * found + sigma * (noise + shift), seen)


@pytest.mark.parametrize(("prediction", "factor"), [("v", SIGMA), ("flow", SIGMA)])
def test_an_answer_that_is_shifted_moves_clean_latents_by_its_part_of_them(prediction, factor):
    clean, noise, shift = draw()
    found = shifted_latents(clean, Schedule(prediction), 500, shift, noise, "prediction")
    torch.testing.assert_close(found, clean - factor * shift)


def test_shifted_noise_and_a_shifted_answer_are_one_where_noise_is_answered():
    clean, noise, shift = draw()
    schedule = Schedule("epsilon")
    both = [shifted_latents(clean, schedule, 5, shift, noise, of) for of in ("noise", "prediction")]
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("name", SHARED)
def test_a_shift_has_energy_where_the_axes_that_share_it_let_it(name):
    rng = torch.Generator().manual_seed(1)
    shape = (1, 3, 4, 5, 6)
    drawn = draw_shared(shape, SHARED[name], 1.0, rng).expand(shape)
    energy = spectrum(drawn.numpy())[0]
    if "frame" in SHARED[name]:
        assert energy[1:].max() < 1e-12  # nothing moves
    if "row" in SHARED[name]:
        assert energy[:, 1:, 1:].max() < 1e-12  # nothing has a shape
    assert energy.sum() == pytest.approx(float(drawn.square().mean()))
