"""What every backbone must do; here they have random weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attrs import frozen
from checkpoints import cogvideox
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan
from torch import Tensor, nn

from jtcore import JtError
from jtcore.noise import Draws, SharedNoise, Times
from jtcore.plugins import load_plugins
from jtcore.types import BackboneSpec
from jtplugins.backbones.cogvideox import CogVideoX
from jtplugins.backbones.pocket import Pocket
from jtplugins.backbones.wan import Wan
from jtplugins.backbones.zeroscope import ModelScope, ZeroScope

Size = tuple[int, int, int]  # frames, height and width


@frozen
class Case:
    """A backbone that is small, and a size of video that it can do"""

    build: Callable[[Path, int], BackboneSpec]  # in an empty folder, with weights from a seed
    size: Size


CASES = {  # by the kind that recipes name
    "pocket": Case(lambda folder, seed: Pocket("random", seed=seed), (3, 24, 24)),
    "cogvideox": Case(
        lambda folder, seed: CogVideoX(str(cogvideox.build(folder, "5b", seed))), (9, 32, 48)
    ),
    "zeroscope": Case(
        lambda folder, seed: ZeroScope(str(build_zeroscope(folder, bins=True, seed=seed))),
        (3, 32, 48),
    ),
    "modelscope": Case(
        lambda folder, seed: ModelScope(str(build_zeroscope(folder, seed=seed))), (3, 32, 48)
    ),
    "wan": Case(lambda folder, seed: Wan(str(build_wan(folder, seed))), (5, 32, 48)),
}
every_medium = pytest.mark.parametrize("medium", ["image", "video"])
CPU, META = torch.device("cpu"), torch.device("meta")
PROMPTS = ("a red ball moves left", "a blue ring stays", "")


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def spec(case: Case, tmp_path_factory: pytest.TempPathFactory) -> BackboneSpec:
    return case.build(tmp_path_factory.mktemp("weights"), 0)


@pytest.fixture(scope="module")
def size(case: Case) -> Size:
    return case.size


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_medium(size: Size, medium: str) -> Size:
    return (1, *size[1:]) if medium == "image" else size


def draw_latents(spec, size, batch: int = 2) -> Tensor:  # (B, C, F, H, W)
    return torch.randn(batch, *spec.latent_shape(*size), generator=seeded())


def test_every_shipped_backbone_is_on_the_list():
    shipped = load_plugins().families["backbones"]
    assert set(shipped) <= set(CASES)


@every_medium
def test_latents_have_the_announced_shape_and_become_pixels_again(spec, size, medium):
    frames, height, width = of_medium(size, medium)
    pixels = torch.rand(2, 3, frames, height, width, generator=seeded()) * 2 - 1
    codec = spec.load_codec(CPU)
    latents = codec.encode(pixels, seeded())
    assert latents.shape[1:] == spec.latent_shape(frames, height, width)
    decoded = codec.decode(10 * latents)
    assert decoded.shape == pixels.shape
    assert decoded.abs().max() <= 1


def test_an_impossible_size_is_refused_with_one_that_fits(spec, size):
    with pytest.raises(ValueError, match=r"the nearest is [0-9]+x[0-9]+$"):
        spec.latent_shape(size[0], size[1] + 1, size[2])


def test_a_prompt_means_the_same_in_any_company(spec, size):
    encoder = spec.load_text_encoder(CPU)
    together = encoder.embed(PROMPTS)
    assert together.ndim == 3 and len(together) == len(PROMPTS)
    for prompt, text in zip(PROMPTS, together, strict=True):
        torch.testing.assert_close(encoder.embed([prompt])[0], text)


def test_identities_are_the_same_when_asked_twice_and_tell_weights_apart(spec, case, tmp_path):
    other = case.build(tmp_path, 1)
    identities = (type(spec).denoiser_identity, type(spec).text_identity, type(spec).codec_identity)
    for identity in identities:
        assert identity(spec) == identity(spec) != identity(other)


def test_loading_is_repeatable_and_draws_nothing_from_the_global_generator(spec, size):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = (spec.load(CPU, torch.float32).denoiser.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_denoiser_is_frozen_and_does_not_drop_out(spec, size):
    denoiser = spec.load(CPU, torch.float32).denoiser
    assert not any(weight.requires_grad for weight in denoiser.parameters())
    assert not any(module.training for module in denoiser.modules())


def test_on_meta_it_has_the_same_names_and_shapes_and_no_weights(spec, size):
    real = spec.load(CPU, torch.bfloat16).denoiser.state_dict()
    bare = spec.load(META, torch.bfloat16).denoiser.state_dict()
    assert {name: (w.shape, w.dtype) for name, w in bare.items()} == {
        name: (w.shape, w.dtype) for name, w in real.items()
    }
    assert all(weight.is_meta for weight in bare.values())


def test_the_role_that_jointtuner_trains_is_made_of_linears(spec, size):
    found = spec.load(META, torch.float32).targets("visual")
    assert all(isinstance(module, nn.Linear) for module in found.values())


def test_an_unknown_role_is_answered_with_the_nearest(spec, size):
    backbone = spec.load(META, torch.float32)
    with pytest.raises(JtError, match=r"^unknown target role 'visal'; did you mean 'visual'\?$"):
        backbone.targets("visal")


def test_noise_is_drawn_from_the_generator_alone_and_in_float32(spec, size):
    backbone, latents = spec.load(META, torch.float32), draw_latents(spec, size).bfloat16()
    before = torch.get_rng_state()
    first, again = (backbone.noise(latents, seeded()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("latents", "times", "target"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert first.latents.dtype == first.target.dtype == torch.float32
    assert first.latents.shape == first.target.shape == latents.shape
    assert first.times.shape == (2,)


def noise_in(backbone, noised) -> Tensor:  # (B, C, F, H, W), of clean latents that are 0
    return noised.latents / backbone.levels(noised.times).over(noised.latents)[1]


def test_plain_noise_is_all_that_is_drawn_after_the_times(spec, size):
    backbone, rng = spec.load(META, torch.float32), seeded()
    clean = torch.zeros_like(draw_latents(spec, size))
    found = noise_in(backbone, backbone.noise(clean, seeded()))
    if backbone.prediction == "flow":
        torch.rand(2, generator=rng)
    else:
        torch.randint(1000, (2,), generator=rng)
    torch.testing.assert_close(found, torch.randn(found.shape, generator=rng))


def test_times_have_the_density_that_is_asked_for(spec, size):
    backbone, clean = spec.load(META, torch.float32), torch.zeros(40_000, 1, 1, 1, 1)
    plain = backbone.noise(clean, seeded()).times.double()
    skewed = backbone.noise(clean, seeded(1), Draws(Times(skew=0.5))).times
    assert (skewed >= plain.median()).float().mean().item() == pytest.approx(0.659, abs=0.01)


def test_noise_that_axes_share_is_in_the_latents_and_in_the_target(spec, size):
    backbone, clean = spec.load(META, torch.float32), draw_latents(spec, size)
    plain = backbone.noise(clean, seeded())
    shifted = backbone.noise(clean, seeded(), Draws(offset=SharedNoise(0.3, ("channel", "frame"))))
    signal, sigma = backbone.levels(plain.times).over(clean)
    shift = (shifted.latents - plain.latents) / sigma
    torch.testing.assert_close(shift, shift[:, :1, :1].expand_as(shift), atol=1e-4, rtol=1e-4)
    assert shift[:, 0, 0].std() > 0.1
    share = signal if backbone.prediction == "v" else 1  # of noise in what is to be answered
    torch.testing.assert_close(shifted.target - plain.target, share * shift, atol=1e-4, rtol=1e-4)


def test_samples_begin_with_noise_of_deviation_1_whatever_walks(spec, size):
    backbone = spec.load(META, torch.float32)
    with pytest.raises(JtError, match="; there are ") as caught:
        backbone.sampler(8, "?")
    for scheduler in str(caught.value).partition("; there are ")[2].split(", "):
        start = backbone.sampler(8, scheduler).start((4, 16, 5, 20, 20), seeded())
        assert start.std().item() == pytest.approx(1, abs=0.01)


@every_medium
def test_a_prediction_is_like_the_target_and_minds_its_own_sample(spec, size, medium):
    backbone = spec.load(CPU, torch.float32)
    text = spec.load_text_encoder(CPU).embed(PROMPTS[:2])
    noised = backbone.noise(draw_latents(spec, of_medium(size, medium)), seeded())
    prediction = backbone.predict(noised.latents, noised.times, text)
    assert prediction.shape == noised.target.shape
    alone = backbone.predict(noised.latents[1:], noised.times[1:], text[1:])
    torch.testing.assert_close(prediction[1:], alone, atol=1e-5, rtol=1e-4)


def test_a_denoiser_in_bfloat16_still_answers_in_float32(spec, size):
    backbone = spec.load(CPU, torch.bfloat16)
    text = spec.load_text_encoder(CPU).embed(PROMPTS[:2])
    noised = backbone.noise(draw_latents(spec, size), seeded())
    assert backbone.predict(noised.latents, noised.times, text).dtype == torch.float32


def test_a_sampler_goes_from_noise_to_clean_in_as_many_steps_as_asked(spec, size):
    backbone = spec.load(META, torch.float32)
    sampler = backbone.sampler(steps=8)
    latents = sampler.start((1, *spec.latent_shape(*size)), seeded())
    for index in range(8):
        latents = sampler.step(torch.zeros_like(latents), index, latents, seeded())
    assert latents.shape[1:] == spec.latent_shape(*size) and latents.isfinite().all()
    assert len(sampler.times) == 8
    assert all(now > then for now, then in zip(sampler.times, sampler.times[1:], strict=False))
