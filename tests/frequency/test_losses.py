"""What losses are said to teach, against formulas, and against gradients that are known."""

import numpy as np
import pytest
import torch

from jtcore.frequency import losses
from jtcore.frequency.asked import askable
from jtcore.frequency.losses import Gradients, Settings, gradients, table
from jtcore.frequency.shift import line
from jtcore.frequency.subject import Subject
from jtcore.noise import PLAIN
from jtcore.spectrum import Spectrum, temporal


@pytest.fixture
def subject(pocket, write_recipe) -> Subject:
    return Subject(str(write_recipe(pocket)), say=lambda told: None)


def test_the_gradient_of_a_shift_is_still_and_as_large_as_its_formula_says(subject):
    asked = askable(subject, ["diffusion", "ait"], "diffusion", ())
    found = gradients(subject, "motion", asked, Settings(draws=6, own=4))
    own = found["ait"].own_of_prediction
    numbers = own[0].size
    # of |f + s - y|^2 / N the gradient is 2 (f + s - y) / N, of which s, of variance 1, is 2 s / N
    assert (own**2).mean() * numbers**2 / 4 == pytest.approx(1, rel=0.5)
    share = temporal(own).share.energy
    np.testing.assert_allclose(share[:, 0], 1, atol=1e-9)
    assert not found["diffusion"].own_of_prediction.any()
    assert not found["diffusion"].own_variance.any()


def test_gradients_of_weights_are_those_of_training(subject):
    asked = askable(subject, ["diffusion"], "diffusion", ())
    found = gradients(subject, "motion", asked, Settings(draws=3, own=2))["diffusion"]
    model, stream = subject.model, subject.stream("motion")
    part = stream.single(0, subject.texts)
    noised = model.backbone.noise(part.latents, losses.generator(0, "frequency", "noise", 0), PLAIN)
    weights = [w for a in model.adapters.values() for w in a.parameters()]
    with losses.switched_on(dict.fromkeys(model.adapters.values(), 1.0), 1, part.files):
        prediction = model.backbone.predict(noised.latents, noised.times, part.text)
        loss = (prediction - noised.target).square().mean()
        expected = torch.autograd.grad(loss, weights, allow_unused=True)
    flat = torch.cat(
        [
            torch.zeros_like(w).flatten() if g is None else g.flatten()
            for g, w in zip(expected, weights, strict=True)
        ]
    )
    np.testing.assert_allclose(found.of_weights[0], flat.numpy(), rtol=1e-4, atol=1e-9)


def drawn(mean: np.ndarray, noise: float, draws: int, seed: int) -> Gradients:
    rng = np.random.default_rng(seed)
    weights = mean + noise * rng.standard_normal((draws, len(mean)))
    return Gradients(np.zeros(1), np.zeros(1), weights, np.zeros(len(mean)), own=1)


def test_squared_norms_of_means_have_no_bias_of_finite_draws():
    mean = np.full(50, 0.1)  # |mean|^2 = 0.5, and noise adds 50 / 8 to a plain mean's
    found = [
        losses._off(one.of_weights @ one.of_weights.T)
        for one in (drawn(mean, 1.0, 8, seed) for seed in range(400))
    ]
    error = np.std(found) / 20
    assert abs(np.mean(found) - 0.5) < 4 * error
    assert error < 0.1


def test_a_loss_that_teaches_the_same_has_no_bias_and_another_has_its_own(monkeypatch, subject):
    monkeypatch.setattr(losses, "_places", lambda subject, stream: {})
    mean, other = np.zeros(40), np.zeros(40)
    mean[0], other[1] = 1.0, 1.0
    found = {
        "plain": drawn(mean, 0.1, 40, 1),
        "same": drawn(mean, 0.1, 40, 2),
        "turned": drawn(other, 0.1, 40, 3),
    }
    rows = {row.loss: row for row in table(subject, "motion", found, "plain")}
    assert rows["same"].bias.low <= 0.02
    assert rows["same"].bias.value == pytest.approx(0, abs=0.05)
    assert rows["same"].cosine.value == pytest.approx(1, abs=0.05)
    # at right angles and as long: |one - other|^2 is 2 |other|^2
    assert rows["turned"].bias.value == pytest.approx(2, abs=0.2)
    assert rows["turned"].bias.low < 2 < rows["turned"].bias.high
    assert rows["turned"].cosine.value == pytest.approx(0, abs=0.1)
    assert rows["plain"].snr == pytest.approx(1 / (40 * 0.01), rel=0.3)


def test_roles_are_of_the_layers_that_they_name(subject):
    places = losses._places(subject, "motion")
    names = [
        name
        for adapter in subject.model.adapters.values()
        for name, weight in adapter.named_parameters()
        for _ in range(weight.numel())
    ]
    assert {".ff." in names[place] for place in places["feed_forward"]} == {True}
    assert {".attn1." in names[place] for place in places["attention"]} == {True}
    assert len(places["feed_forward"]) + len(places["attention"]) == len(names)


def test_a_gradient_is_split_into_its_mean_and_what_varies():
    rng = np.random.default_rng(0)
    mean = 3 * np.cos(2 * np.pi * np.arange(8) / 8).reshape(1, 1, 8, 1, 1)  # of energy 9 / 2
    shape, draws, own = (1, 8, 4, 4), 500, 2
    still = rng.standard_normal((draws, 1, 1, 4, 4)) * 2 + np.zeros((draws, *shape))
    of_noise = rng.standard_normal((draws, *shape))
    each = mean + of_noise + still / own**0.5  # the mean over so many own draws
    found = Gradients(each, still, np.zeros((draws, 1)), np.zeros(1), own)
    of_mean, varying, drawn_itself = (one.energy.mean(0) for one in losses._split(found, temporal))
    np.testing.assert_allclose(of_mean, [0, 4.5, 0, 0, 0], atol=0.05)
    np.testing.assert_allclose(varying, [1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], atol=0.08)
    np.testing.assert_allclose(drawn_itself, [4, 0, 0, 0, 0], atol=0.15)


def split_mean(clips: np.ndarray) -> Spectrum:
    """What the mean over noise has, of a loss that draws nothing."""
    count = len(clips)
    none = np.zeros((count, 1))
    return losses._split(Gradients(clips, clips * 0, none, none[0], 2), temporal)[0]


def test_what_is_sure_of_a_mean_is_told_by_leaving_draws_out():
    rng = np.random.default_rng(0)
    clips = 0.5 + rng.standard_normal((5, 2, 6, 3, 3))

    def squared(kept: np.ndarray) -> np.ndarray:  # of the mean, by products of different draws
        count, whole = len(kept), temporal(kept).energy
        energy = temporal(kept.mean(0, keepdims=True)).energy[0]
        return (count * energy - whole.mean(0)) / (count - 1)

    left_out = [squared(np.delete(clips, draw, 0)) for draw in range(5)]
    expected = 5 * squared(clips) - 4 * np.stack(left_out)
    np.testing.assert_allclose(split_mean(clips).energy, expected, rtol=1e-9, atol=1e-12)


def test_intervals_of_a_mean_hold_the_truth_about_as_often_as_they_say():
    rng, held = np.random.default_rng(0), []
    mean = np.cos(2 * np.pi * np.arange(4) / 4).reshape(1, 1, 4, 1, 1)  # of energy 1/2, at 1/4
    for _ in range(300):
        clips = mean + rng.standard_normal((12, 1, 4, 1, 1))
        drawn_line = line("one", split_mean(clips), positive=False)
        held.append(drawn_line.low[1] < 0.5 < drawn_line.high[1])
    assert 0.9 < np.mean(held) < 0.99


def test_a_loss_with_options_is_asked_and_named_by_them(subject):
    said = '{kind = "shift", applied_to = "target", std = 2.0}'
    asked = askable(subject, ["ait", said], "diffusion", ())
    assert list(asked) == ["diffusion", "ait", "shift, applied_to = target, std = 2.0"]
    found = gradients(subject, "motion", asked, Settings(draws=3, own=2))
    one, other = (found[name].own_of_prediction for name in list(asked)[1:])
    np.testing.assert_allclose(other, -2 * one, rtol=1e-4, atol=1e-9)  # on the target, twice


def test_roles_of_the_same_weights_are_told_once(subject):
    assert list(losses._places(subject, "motion")) == ["attention", "feed_forward"]


def test_gradients_are_told_of_what_the_recipe_trains_on_those_clips(pocket, write_recipe):
    pocket["adapter"]["still"] = {"kind": "lora", "targets": "visual", "rank": 1}
    branch = {"data": ["subject"], "adapters": ["still"], "losses": {"all": {"kind": "diffusion"}}}
    pocket["stage"]["joint"]["branch"]["still"] = branch
    subject = Subject(str(write_recipe(pocket)), say=lambda told: None)
    assert {adapter for adapter, _ in losses._weights(subject, "motion")} == {"joint"}
    assert {adapter for adapter, _ in losses._weights(subject, "held_out")} == {"joint", "still"}


def test_nothing_is_measured_by_a_gradient_that_is_not_told_from_zero(monkeypatch, subject):
    monkeypatch.setattr(losses, "_places", lambda subject, stream: {})
    opposed = Gradients(np.zeros(1), np.zeros(1), np.array([[1.0], [-1.0]]), np.zeros(1), own=2)
    (row,) = table(subject, "motion", {"plain": opposed}, "plain")
    assert np.isnan([row.bias.value, row.bias.low, row.cosine.value, row.own_variance]).all()
