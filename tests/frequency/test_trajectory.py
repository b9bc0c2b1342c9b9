"""What a model believes at each step, against what it ends with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jtcore.frequency.subject import Subject
from jtcore.frequency.trajectory import denoised, formed, parts
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
