"""Latents under shifts, by formulas."""

import numpy as np
import pytest
import torch

from jtcore.diffusion import Levels, noised
from jtcore.frequency.shift import (
    SHARED,
    Settings,
    energy_interval,
    figures,
    shifted,
    shifted_latents,
)
from jtcore.noise import draw_shared
from jtcore.spectrum import joint, spectrum

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


def test_the_interval_of_energies_is_above_0_and_that_of_their_logarithm():
    values = [0.1, 0.4, 0.2, 3.0]
    found = energy_interval(values)
    assert found.estimate == pytest.approx(np.mean(values))
    # of log m, by the delta method, with Student's t of three degrees of freedom
    reach = 3.182446 * np.std(values, ddof=1) / 2 / np.mean(values)
    assert np.log(found.high / found.estimate) == pytest.approx(reach, rel=1e-5)
    assert np.log(found.estimate / found.low) == pytest.approx(reach, rel=1e-5)
    assert energy_interval([0.0, 0.0]).estimate == 0
    assert not energy_interval([1.0]).is_bounded


def test_intervals_of_few_energies_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [energy_interval(each.tolist()) for each in rng.exponential(size=(1000, 4))]
    held = np.mean([each.low < 1 < each.high for each in found])
    assert 0.91 < held < 0.98


def test_a_map_tells_how_many_times_its_share_each_frequency_has():
    clean, _, _ = draw()
    settings = Settings(times=(500,), shifts=("temporal",), draws=1, bands=4)
    schedule = Schedule("epsilon")
    (told,) = figures(clean, schedule, settings, "random")["shift_joint"].maps
    (_, _, unshifted), (_, _, moved) = shifted(clean, schedule, settings)
    before, after = (joint(np.asarray(each), 4).share.energy.mean(0) for each in (unshifted, moved))
    np.testing.assert_allclose(told.values, np.log2(after / before))
    assert (told.values[1:] < 0).all()  # what moves loses
    assert told.values[0].max() > 0
