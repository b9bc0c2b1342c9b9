"""CogVideoX's schedule and network against stock diffusers and the definitions."""

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Generator, Tensor

from jtplugins.backbones._cogvideox import CogVideoXBackbone, rotary_embedding

CPU = torch.device("cpu")


def build(rotary: bool = True, shift: float = 1.0) -> CogVideoXBackbone:
    torch.manual_seed(0)
    denoiser = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=1,
        sample_width=8,
        sample_height=4,
        max_text_seq_length=5,
        use_rotary_positional_embeddings=rotary,
    )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=shift,
        clip_sample=False,
    )
    return CogVideoXBackbone(denoiser, scheduler)


@pytest.fixture(scope="module")
def backbone() -> CogVideoXBackbone:
    return build()


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def alpha_bars(backbone: CogVideoXBackbone, times: Tensor) -> Tensor:  # (B,) -> (B, 1, 1, 1, 1)
    return backbone.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("shift", [1.0, 3.0], ids=["5b", "2b"])
def test_latents_and_noise_can_be_recovered_from_the_noised_and_the_velocity(shift):
    backbone, x0 = build(shift=shift), draw(64, 4, 2, 2, 2)
    noised = backbone.noise(x0, seeded())
    alpha = alpha_bars(backbone, noised.times)
    x0_found = alpha.sqrt() * noised.latents - (1 - alpha).sqrt() * noised.target
    noise = (1 - alpha).sqrt() * noised.latents + alpha.sqrt() * noised.target
    torch.testing.assert_close(x0_found.float(), x0)
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1


def test_noise_is_what_stock_diffusers_adds(backbone):
    noised = backbone.noise(draw(64, 4, 2, 2, 2), seeded())
    x0 = draw(64, 4, 2, 2, 2)
    alpha = alpha_bars(backbone, noised.times)
    noise = ((1 - alpha).sqrt() * noised.latents + alpha.sqrt() * noised.target).float()
    stock = backbone.scheduler
    torch.testing.assert_close(stock.add_noise(x0, noise, noised.times), noised.latents)
    torch.testing.assert_close(stock.get_velocity(x0, noise, noised.times), noised.target)


def test_times_are_uniform_over_the_whole_schedule(backbone):
    times = backbone.noise(torch.zeros(40_000, 1, 1, 1, 1), seeded()).times
    assert (times.min(), times.max()) == (0, 999)
    assert times.float().mean().item() == pytest.approx(499.5, abs=5)


@pytest.mark.parametrize("steps", [1, 10, 30, 50])
def test_a_perfect_prediction_is_sampled_to_the_clean_latents(backbone, steps):
    x0, sampler = draw(2, 4, 2, 2, 2), backbone.sampler(steps)
    latents = sampler.start(x0.shape, seeded())
    for index, time in enumerate(sampler.times):
        alpha = alpha_bars(backbone, time[None])
        noise = (latents - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
        latents = sampler.step(velocity, index, latents, seeded())
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, x0, atol=1e-5, rtol=1e-5)


def test_sampling_begins_at_pure_noise_and_is_spaced_trailing(backbone):
    assert [int(time) for time in backbone.sampler(5).times] == [999, 799, 599, 399, 199]


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("rotary", [True, False], ids=["5b", "2b"])
def test_a_prediction_is_that_of_the_stock_transformer(rotary, frames):
    backbone = build(rotary)
    latents, text, times = draw(2, 4, frames, 4, 8), draw(2, 5, 8), torch.tensor([3, 900])
    embedding = get_3d_rotary_pos_embed(16, ((0, 0), (2, 4)), (2, 4), frames) if rotary else None
    expected = backbone.denoiser(
        hidden_states=latents.permute(0, 2, 1, 3, 4),
        encoder_hidden_states=text,
        timestep=times,
        image_rotary_emb=embedding,
    ).sample
    found = backbone.predict(latents, times, text)
    assert torch.equal(found, expected.permute(0, 2, 1, 3, 4))


@pytest.mark.parametrize("grid", [(2, 4), (2, 2), (4, 4), (6, 4), (3, 9), (5, 7)])
def test_other_sizes_have_the_positions_of_the_stock_pipeline(grid):
    region = get_resize_crop_region_for_grid(grid, 4, 2)
    expected = get_3d_rotary_pos_embed(16, region, grid, 3)
    found = rotary_embedding(16, 3, grid, (2, 4), CPU)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_positions_cached_while_sampling_can_be_trained_with(backbone):
    rotary_embedding.cache_clear()
    question = draw(1, 4, 3, 4, 8), torch.tensor([500]), draw(1, 5, 8)
    with torch.inference_mode():
        sampled = backbone.predict(*question)
    trained = backbone.predict(*question)
    trained.sum().backward()
    assert torch.equal(sampled, trained.detach())
