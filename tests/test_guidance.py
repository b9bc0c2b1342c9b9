"""Guidance, schedulers and batches, against stock diffusers and against one video at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import cos, pi

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline
from torch import Tensor

from jtcore.adapter import Adapter
from jtcore.engine import Engine
from jtcore.guidance import cosine_guidance
from jtcore.media import read_sample
from jtcore.model import Model
from jtcore.recipe import Sampling
from jtcore.sample import denoise, generate, requests
from jtcore.settings import EngineSettings
from jtplugins.adapters.glora import GLoRA
from jtplugins.backbones._cogvideox import CogVideoXBackbone
from jtplugins.backbones.pocket import Pocket

PROMPTS = ("a red ball moves left", "a blue ring stays")
FRAMES, SIDE = 5, 24  # of a video; px
SHAPE = Pocket("random").latent_shape(FRAMES, SIDE, SIDE)
STOCK = {None: CogVideoXDDIMScheduler, "ddim": CogVideoXDDIMScheduler, "dpm": CogVideoXDPMScheduler}


@pytest.fixture(scope="module")
def model() -> Model:
    """Pocket with random weights, and a gated adapter as if it were trained."""
    spec, cpu = Pocket("random"), torch.device("cpu")
    backbone = spec.load(cpu, torch.float32)
    captions = (*PROMPTS, "")
    texts = dict(zip(captions, spec.load_text_encoder(cpu).embed(captions), strict=True))
    adapter = trained(GLoRA("visual", rank=4).attach(backbone, {}))
    return Model(backbone, {"joint": adapter}, texts, Engine(EngineSettings(device="cpu")))


def trained(adapter: Adapter) -> Adapter:
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=0.1)
    return adapter.eval()


def settings(**options) -> Sampling:
    plain = {"prompts": PROMPTS, "frames": FRAMES, "size": (SIDE, SIDE), "steps": 6}
    return Sampling(**plain | options)


def sampled(
    model: Model, asked: Sampling, scales: dict[str, float] | None = None
) -> Tensor:  # (B, C, F, H, W)
    """Every prompt and seed in one batch."""
    return denoise(list(requests(asked, scales or {})), asked, model, SHAPE)


# Guidance


def stock_latents(
    model: Model, scheduler: type, guidance: float, steps: int, dynamic: bool
) -> tuple[Tensor, list[float]]:
    """What diffusers' own pipeline denoises for the first prompt and seed 0, (1, C, F, H, W), and
    its guidance in each step."""
    backbone: CogVideoXBackbone = model.backbone
    config = backbone.scheduler.config
    own = scheduler.from_config(config, timestep_spacing="trailing")
    pipeline = CogVideoXPipeline(None, None, None, backbone.denoiser, own)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae_scale_factor_spatial, pipeline.vae_scale_factor_temporal = SIDE // SHAPE[-1], 1
    strengths: list[float] = []

    def listen(pipe: CogVideoXPipeline, step: int, time: Tensor, tensors: dict) -> dict:
        strengths.append(pipe.guidance_scale)
        return {}

    answer = pipeline(
        prompt_embeds=model.texts[PROMPTS[0]][None],
        negative_prompt_embeds=model.texts[""][None],
        height=SIDE,
        width=SIDE,
        num_frames=FRAMES,
        num_inference_steps=steps,
        guidance_scale=guidance,
        use_dynamic_cfg=dynamic,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        callback_on_step_end=listen,
    )
    return answer.frames.transpose(1, 2), strengths


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("scheduler", STOCK)
def test_a_sample_is_that_of_the_stock_pipeline(model, scheduler, dynamic):
    asked = settings(
        prompts=PROMPTS[:1], scheduler=scheduler, dynamic_guidance=dynamic, guidance=6.0
    )

    expected, _ = stock_latents(model, STOCK[scheduler], 6.0, asked.steps, dynamic)
    assert torch.equal(sampled(model, asked), expected)


@pytest.mark.parametrize("steps", [5, 50])
def test_dynamic_guidance_is_as_strong_as_that_of_the_stock_pipeline(model, steps):
    _, expected = stock_latents(model, CogVideoXDDIMScheduler, 6.0, steps, dynamic=True)

    times = [int(time) for time in model.backbone.sampler(steps).times]
    assert [cosine_guidance(6.0, steps, time) for time in times] == expected


def test_dynamic_guidance_rises_only_where_fewer_times_than_steps_are_left():
    strengths = [cosine_guidance(6.0, 50, time) for time in range(1000)]

    assert strengths[0] == 7 and strengths[50] == 1 and strengths[100] == 7
    assert sorted(strengths[:51], reverse=True) == strengths[:51]
    assert strengths[70] == pytest.approx(1 + 6 * (1 - cos(pi * 0.4**5)) / 2)
    assert min(strengths[500:]) < 1.1 < 6.9 < max(strengths[500:])


@contextmanager
def forwards(model: Model) -> Iterator[list[int]]:
    """How many samples each forward of the denoiser has."""
    sizes: list[int] = []
    hook = model.backbone.denoiser.register_forward_hook(
        lambda module, inputs, output: sizes.append(len(output[0]))
    )
    yield sizes
    hook.remove()


@pytest.mark.parametrize(("guidance", "halves"), [(1.0, 1), (0.0, 2), (6.0, 2)])
def test_without_guidance_the_denoiser_answers_one_prompt(model, guidance, halves):
    asked = settings(prompts=PROMPTS[:1], guidance=guidance, dynamic_guidance=True)

    with forwards(model) as sizes:
        sampled(model, asked)
    assert sizes == [halves] * asked.steps


def test_guidance_leads_away_from_the_negative_prompt(model):
    towards = sampled(model, settings(prompts=PROMPTS[:1], guidance=1.0, steps=1))
    away = sampled(model, settings(prompts=PROMPTS[1:], guidance=1.0, steps=1))

    guided = settings(prompts=PROMPTS[:1], negative=PROMPTS[1], guidance=3.0, steps=1)
    torch.testing.assert_close(sampled(model, guided), away + 3 * (towards - away))


# Batches


@pytest.mark.parametrize("guidance", [1.0, 6.0])
@pytest.mark.parametrize("scheduler", ["ddim", "dpm"])
def test_a_video_is_in_company_what_it_is_alone(model, scheduler, guidance):
    asked = settings(seeds=(0, 5), scheduler=scheduler, guidance=guidance)
    wanted = list(requests(asked, {"joint": 0.7}))

    together = denoise(wanted, asked, model, SHAPE)
    alone = torch.cat([denoise([each], asked, model, SHAPE) for each in wanted])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1  # of other noise
    assert (together[0] - together[2]).abs().max() > 0.01  # of another prompt


def test_each_video_of_a_batch_begins_with_the_noise_of_its_seed(model):
    asked = settings(prompts=PROMPTS[:1], seeds=(0, 5), steps=1, guidance=1.0)
    begun: list[Tensor] = []
    hook = model.backbone.denoiser.register_forward_pre_hook(
        lambda module, inputs: begun.extend(inputs[0])
    )
    sampled(model, asked)
    hook.remove()

    frames_first = (1, SHAPE[1], SHAPE[0], *SHAPE[2:])
    for found, seed in zip(begun, asked.seeds, strict=True):
        noise = torch.randn(*frames_first, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(found, noise[0])


def test_a_run_in_batches_samples_the_same(table, jt_run):
    table["sample"] |= {"prompts": ["a wug", "a dax"], "seeds": [0, 1]}
    one = jt_run(table, "--quiet", name="one")
    three = jt_run(table, "--quiet", "--set", "sample.batch=3", name="three")

    expected, found = (json.loads((run / "metrics.json").read_text()) for run in (one, three))
    for entry, told in zip(expected["samples"], found["samples"], strict=True):
        assert told == entry | {"batch": 3, "metrics": told["metrics"]}
        videos = [read_sample(run / "samples" / entry["file"])[0] for run in (one, three)]
        torch.testing.assert_close(*videos, atol=2 / 255, rtol=0)


def test_a_video_that_is_missing_is_made_in_the_company_that_it_had(model, tmp_path):
    asked = settings(prompts=PROMPTS[:1], seeds=(0, 1, 2), batch=2, steps=1)
    wanted = list(requests(asked, {"joint": 0.7}))
    first, second, third = (tmp_path / request.file for request in wanted)

    def write() -> list[int]:
        with forwards(model) as sizes:
            generate(wanted, tmp_path, asked, Pocket("random"), model, lambda: None)
        return sizes

    assert write() == [4, 2]
    before = [path.read_bytes() for path in (first, second, third)]
    first.unlink()
    second.write_bytes(b"as it was")
    assert write() == [4]
    assert first.read_bytes() == before[0]
    assert second.read_bytes() == b"as it was"
    assert write() == []


def test_models_with_other_adapters_are_not_in_one_batch(model, tmp_path):
    asked = settings(prompts=PROMPTS[:1], batch=4, steps=1, guidance=1.0)
    wanted = [*requests(asked, {}), *requests(asked, {"joint": 0.7})]

    with forwards(model) as sizes:
        generate(wanted, tmp_path, asked, Pocket("random"), model, lambda: None)
    assert sizes == [1, 1]
