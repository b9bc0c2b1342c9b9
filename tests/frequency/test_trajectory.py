"""What a model believes at each step, against what it ends with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve

from jtcore.diffusion import separate
from jtcore.frequency.drawing import draw
from jtcore.frequency.subject import Subject
from jtcore.frequency.trajectory import Recording, denoised, figure, formed, parts
from jtcore.guidance import cosine_guidance
from jtcore.inversion import invert
from jtcore.sample import denoise, requests


@pytest.fixture
def subject(pocket: dict, write_recipe: Callable[..., Path]) -> Subject:
    return Subject(str(write_recipe(pocket)), say=lambda told: None)


def test_listening_leaves_samples_as_they_are(subject):
    _, beliefs, final = denoised(subject, 1, [0], on=False)
    settings = subject.sampling
    (request,) = list(requests(settings, {}))[:1]
    shape = subject.recipe.backbone.spec.latent_shape(settings.frames, *settings.size)
    assert torch.equal(final, denoise([request], settings, subject.model, shape))
    assert beliefs.shape == (settings.steps, *final.shape)
    torch.testing.assert_close(beliefs[-1], final, rtol=1e-3, atol=1e-3)


def test_of_one_video_there_is_no_interval(subject):
    told = figure(subject, 1, [0], "pocket")
    assert {line.low for panel in told.panels for line in panel.lines} == {None}
    draw(told)


def test_samples_begin_with_the_noise_of_the_recipes_video(pocket, write_recipe, data):
    _, _, without = denoised(Subject(str(write_recipe(pocket)), say=print), 1, [0], on=False)
    (motion, *_) = sorted((data / "motion").glob("*.mp4"))
    pocket["sample"]["noise_prior"] = {"video": str(motion), "share": 0.5, "steps": 4}
    subject = Subject(str(write_recipe(pocket)), say=print)
    _, _, found = denoised(subject, 1, [0], on=False)
    settings = subject.sampling
    (request,) = list(requests(settings, {}))[:1]
    shape = subject.recipe.backbone.spec.latent_shape(settings.frames, *settings.size)
    inverted = invert(subject.prior, settings.noise_prior, subject.model)
    assert torch.equal(found, denoise([request], settings, subject.model, shape, inverted))
    assert not torch.allclose(found, without, atol=0.1)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_belief_is_the_guided_one_of_the_prompted_latents(subject, dynamic):
    settings = evolve(subject.sampling, guidance=3.0, dynamic_guidance=dynamic)
    backbone = subject.model.backbone
    recording = Recording(backbone, settings)
    text = torch.stack([subject.texts[""], subject.texts[settings.prompts[0]]])
    shape = subject.recipe.backbone.spec.latent_shape(settings.frames, *settings.size)
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([500])
    with torch.no_grad():
        recording.predict(latents.repeat(2, 1, 1, 1, 1), times.repeat(2), text)
        away, towards = (backbone.predict(latents, times, each[None]) for each in text)
    strength = cosine_guidance(3.0, settings.steps, 500.0) if dynamic else 3.0
    answer = away + strength * (towards - away)
    expected, _ = separate(backbone.prediction, answer, latents, backbone.levels(times))
    torch.testing.assert_close(recording.clean[0], expected, rtol=1e-4, atol=1e-4)


def test_what_has_formed_is_one_minus_the_error_beside_the_whole():
    rng = torch.Generator().manual_seed(0)
    final = torch.randn(2, 3, 4, 4, 4, generator=rng)
    there = formed(
        torch.stack([final * 0, final / 2, final]), final, parts((4, 4, 4))["still, fine"]
    )
    np.testing.assert_allclose(there, [[0, 0], [0.75, 0.75], [1, 1]], atol=1e-6)


def test_the_parts_are_all_frequencies_each_once():
    found = parts((5, 6, 7))
    assert len(found) == 4
    assert (sum(places.astype(int) for places in found.values()) == 1).all()
    assert found["still, coarse"][0, 0, 0]


def test_a_still_video_forms_in_still_frequencies_alone():
    final = torch.randn(1, 1, 1, 6, 6).expand(1, 1, 4, 6, 6)
    places = parts((4, 6, 6))
    assert formed(final[None], final, places["still, coarse"]) == pytest.approx(1)
    assert np.isnan(formed(final[None], final, places["moving, coarse"])).all()
