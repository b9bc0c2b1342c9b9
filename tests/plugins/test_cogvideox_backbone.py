"""CogVideoX out of a checkpoint: what stock diffusers makes of it, and nothing else."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from checkpoints.cogvideox import LENGTH, build
from diffusers import CogVideoXDPMScheduler, CogVideoXImageToVideoPipeline, CogVideoXPipeline
from torch import Generator, Tensor

from jtcore import JtError
from jtcore.adapter import switched_on
from jtcore.checkpointing import checkpoint_gradients
from jtcore.engine import Engine
from jtcore.inversion import mix
from jtcore.model import Model, attach_adapters
from jtcore.recipe import Sampling
from jtcore.sample import Request, denoise
from jtcore.settings import EngineSettings
from jtcore.structure import Component
from jtplugins.adapters.glora import GLoRA
from jtplugins.backbones._cogvideox import CogVideoXBackbone
from jtplugins.backbones.cogvideox import CogVideoX

CPU, META = torch.device("cpu"), torch.device("meta")
PROMPTS = ["a red ball jumps on the beach", ""]
SIZE = (32, 48)  # px, what the tiny ones are made for
every_flavour = pytest.mark.parametrize("flavour", ["2b", "5b", "1.5"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Callable[[str], Path]:
    """The checkpoint of a flavour, built when it is first asked for."""
    return cache(lambda flavour: build(tmp_path_factory.mktemp("weights"), flavour))


@pytest.fixture(scope="module")
def stock(folder) -> Callable[[str], CogVideoXPipeline]:
    """diffusers' own pipeline of a flavour, in float32."""
    made: dict[str, CogVideoXPipeline] = {}

    def of(flavour: str) -> CogVideoXPipeline:
        if flavour not in made:
            made[flavour] = CogVideoXPipeline.from_pretrained(folder(flavour))
            made[flavour].set_progress_bar_config(disable=True)
        return made[flavour]

    return of


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


@every_flavour
def test_prompts_are_embedded_as_the_pipeline_does(folder, stock, flavour):
    found = CogVideoX(str(folder(flavour))).load_text_encoder(CPU).embed(PROMPTS)
    with torch.no_grad():
        expected, _ = stock(flavour).encode_prompt(PROMPTS, None, False, max_sequence_length=LENGTH)
    assert torch.equal(found, expected)


@every_flavour
@pytest.mark.parametrize(
    ("frames", "size"), [(1, SIZE), (9, SIZE), (1, (64, 96))], ids=["image", "video", "tiled"]
)
def test_latents_are_drawn_from_the_stock_posterior(folder, stock, flavour, frames, size):
    pixels = draw(2, 3, frames, *size).clamp(-1, 1)
    vae = stock(flavour).vae
    vae.enable_tiling()
    vae.enable_slicing()
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    expected = posterior.sample(seeded(4)) * vae.config.scaling_factor
    found = CogVideoX(str(folder(flavour))).load_codec(CPU).encode(pixels, seeded(4))
    assert torch.equal(found, expected)


@every_flavour
@pytest.mark.parametrize("frames", [1, 3])
def test_latents_are_decoded_as_the_pipeline_does(folder, stock, flavour, frames):
    latents = 3 * draw(1, 4, frames, 4, 6)
    with torch.no_grad():
        expected = stock(flavour).decode_latents(latents.transpose(1, 2)).clamp(-1, 1)
    found = CogVideoX(str(folder(flavour))).load_codec(CPU).decode(latents)
    assert torch.equal(found, expected)


def sample(folder: Path, settings: Sampling) -> Tensor:  # (1, C, F, H, W)
    """What our core generates of the first prompt, without adapters."""
    spec = CogVideoX(str(folder))
    embedded = spec.load_text_encoder(CPU).embed([settings.prompts[0], settings.negative])
    texts = dict(zip([settings.prompts[0], settings.negative], embedded, strict=True))
    engine = Engine(EngineSettings(device="cpu"))
    model = Model(spec.load(CPU, torch.float32), {}, texts, engine)
    shape = spec.latent_shape(settings.frames, *settings.size)
    return denoise([Request(settings.prompts[0], 7, "", {})], settings, model, shape)


def run_stock(pipeline: CogVideoXPipeline, settings: Sampling, kind: str, **options) -> Tensor:
    """What the stock pipeline makes of the same."""
    cls = CogVideoXDPMScheduler if kind == "dpm" else type(pipeline.scheduler)
    config = pipeline.scheduler.config
    pipeline = CogVideoXPipeline(**pipeline.components | {"scheduler": cls.from_config(config)})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        settings.prompts[0],
        settings.negative,
        *settings.size,
        settings.frames,
        settings.steps,
        guidance_scale=settings.guidance,
        generator=seeded(7),
        max_sequence_length=LENGTH,
        **options,
    ).frames


@every_flavour
@pytest.mark.parametrize(
    ("scheduler", "frames", "size"),
    [("ddim", 9, SIZE), ("dpm", 9, SIZE), ("dpm", 1, SIZE), ("ddim", 17, (48, 32))],
)
def test_samples_are_those_of_the_stock_pipeline(folder, stock, flavour, scheduler, frames, size):
    settings = Sampling(
        prompts=(PROMPTS[0],),
        frames=frames,
        size=size,
        steps=4,
        scheduler=scheduler,
        guidance=3.5,
        negative="blurry",
    )
    expected = run_stock(stock(flavour), settings, scheduler, output_type="latent")
    assert torch.equal(sample(folder(flavour), settings), expected.transpose(1, 2))


@every_flavour
def test_videos_are_those_of_the_stock_pipeline(folder, stock, flavour):
    settings = Sampling((PROMPTS[1],), frames=9, size=SIZE, steps=2, guidance=1)
    (expected,) = run_stock(stock(flavour), settings, "ddim", output_type="pt")  # (F, 3, H, W)
    codec = CogVideoX(str(folder(flavour))).load_codec(CPU)
    (found,) = codec.decode(sample(folder(flavour), settings)) / 2 + 0.5
    torch.testing.assert_close(found.transpose(0, 1), expected, rtol=0, atol=1e-6)


def gradients(backbone: CogVideoXBackbone, latents: Tensor) -> dict[str, Tensor]:
    """Of a GLoRA on it, for one step of training with its own noise."""
    spec = Component("glora", GLoRA("visual", rank=2))
    (adapter,) = attach_adapters({"joint": spec}, backbone, seed=0).values()
    with torch.no_grad():
        for weight in adapter.parameters():  # or what begins at zero would hide the rest
            weight.add_(0.1)
    noised = backbone.noise(latents, seeded())
    torch.manual_seed(0)  # of dropout
    with switched_on({adapter: 1.0}, len(latents)):
        answer = backbone.predict(noised.latents, noised.times, draw(len(latents), LENGTH, 32))
        (answer - noised.target).square().mean().backward()
    return {name: weight.grad for name, weight in adapter.named_parameters()}


@every_flavour
@pytest.mark.parametrize("frames", [1, 3])
def test_checkpointing_leaves_gradients_exactly_as_they_are(folder, flavour, frames):
    spec, latents = CogVideoX(str(folder(flavour))), draw(2, 4, frames, 4, 6)
    expected = gradients(spec.load(CPU, torch.float32), latents)
    checkpointed = spec.load(CPU, torch.float32)
    checkpoint_gradients(checkpointed)
    found = gradients(checkpointed, latents)
    assert all(expected[name].abs().max() > 0 for name in expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_checkpointing_runs_every_block_again(folder):
    backbone = CogVideoX(str(folder("5b"))).load(CPU, torch.float32)
    checkpoint_gradients(backbone)
    runs = []
    for name, block in backbone.blocks().items():
        block.register_forward_pre_hook(lambda *_, name=name: runs.append(name))
    gradients(backbone, draw(1, 4, 3, 4, 6))
    assert sorted(runs) == sorted([*backbone.blocks()] * 2)


def test_images_of_1_5_are_doubled_before_noise_is_added(folder):
    backbone = CogVideoX(str(folder("1.5"))).load(CPU, torch.float32)
    clean = draw(1, 4, 1, 4, 6)
    noised = backbone.noise(clean, seeded())
    signal, sigma = backbone.levels(noised.times).over(noised.latents)
    noise = (noised.latents - signal * clean) / sigma
    torch.testing.assert_close(signal * noise - sigma * clean, noised.target)  # of both frames
    assert noised.latents.shape == (1, 4, 2, 4, 6)
    assert (noise[:, :, 0] - noise[:, :, 1]).abs().mean() > 0.5  # each with noise of its own


def test_what_1_5_is_asked_of_single_frames_is_answered_for_them_alone(folder):
    backbone = CogVideoX(str(folder("1.5"))).load(CPU, torch.float32)
    latents, times, text = draw(1, 4, 3, 4, 6), torch.tensor([500]), draw(1, LENGTH, 32)
    with torch.no_grad():
        whole = backbone.predict(torch.cat([latents[:, :, :1], latents], 2), times, text)
        assert torch.equal(backbone.predict(latents, times, text), whole[:, :, 1:])


def test_a_noise_prior_is_mixed_into_the_frames_of_1_5_that_are_shown(folder):
    backbone = CogVideoX(str(folder("1.5"))).load(CPU, torch.float32)
    fresh = backbone.sampler(2).start((1, 4, 3, 4, 6), seeded())
    inverted = draw(4, 3, 4, 6)
    mixed = mix(inverted, fresh, 0.36)
    assert torch.equal(mixed[:, :, :1], fresh[:, :, :1])
    torch.testing.assert_close(mixed[0, :, 1:], 0.6 * inverted + 0.8 * fresh[0, :, 1:])


def test_a_network_with_an_ofs_embedding_is_given_what_its_pipeline_gives_it(tmp_path):
    build(tmp_path, "1.5", ofs_embed_dim=8, patch_size_t=None)
    backbone = CogVideoX(str(tmp_path)).load(CPU, torch.float32)
    given = []
    backbone.denoiser.ofs_proj.register_forward_pre_hook(lambda _, inputs: given.append(inputs))
    with torch.no_grad():
        backbone.predict(draw(2, 4, 3, 4, 6), torch.tensor([3, 9]), draw(2, LENGTH, 32))
    ((found,),) = given
    assert torch.equal(found, torch.tensor([2.0]))  # as in pipeline_cogvideox_image2video.py


@pytest.mark.parametrize(
    ("frames", "size", "message"),
    [
        (9, (30, 48), "CogVideoX takes multiples of 16 px, found 30x48; the nearest is 32x48"),
        (9, (8, 1000), "CogVideoX takes multiples of 16 px, found 8x1000; the nearest is 16x1008"),
        (8, SIZE, "CogVideoX takes 8N+1 frames, found 8; the nearest is 9"),
        (4, SIZE, "CogVideoX takes 8N+1 frames, found 4; the nearest is 1"),
        (85, SIZE, "CogVideoX takes 8N+1 frames, found 85; the nearest is 89"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest(folder, frames, size, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CogVideoX(str(folder("1.5"))).latent_shape(frames, *size)


def test_the_published_sizes_fit():
    assert CogVideoX("random", config="5b").latent_shape(49, 480, 720) == (16, 13, 60, 90)
    assert CogVideoX("random", config="2b").latent_shape(1, 480, 720) == (16, 1, 60, 90)
    assert CogVideoX("random", config="1.5-5b").latent_shape(81, 768, 1360) == (16, 21, 96, 170)


def test_options_that_a_configuration_does_not_say_are_the_classes_own(tmp_path):
    build(tmp_path, "2b")
    whole = CogVideoX(str(tmp_path))
    expected = whole.latent_shape(9, *SIZE), whole.precision_problem("bf16")
    for part in ("transformer", "vae", "scheduler"):
        file = next((tmp_path / part).glob("*config.json"))
        config = json.loads(file.read_text())
        optional = {"patch_size", "patch_size_t", "use_learned_positional_embeddings"}
        optional |= {"use_rotary_positional_embeddings", "temporal_compression_ratio"}
        file.write_text(json.dumps({key: config[key] for key in config if key not in optional}))
    assert (whole.latent_shape(9, *SIZE), whole.precision_problem("bf16")) == expected
    assert whole.load(CPU, torch.float32).denoiser.config.patch_size == 2


def test_learned_positions_are_of_one_size(tmp_path):
    rotary = {"use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True}
    spec = CogVideoX(str(build(tmp_path, "5b", **rotary)))
    assert spec.latent_shape(9, *SIZE) == (4, 3, 4, 6)
    settings = Sampling((PROMPTS[0],), frames=9, size=SIZE, steps=2, guidance=1)
    pipeline = CogVideoXPipeline.from_pretrained(tmp_path)
    expected = run_stock(pipeline, settings, "ddim", output_type="latent").transpose(1, 2)
    assert torch.equal(sample(tmp_path, settings), expected)
    other = (
        "CogVideoX takes the one size of its learned positions, found 48x32; the nearest is 32x48"
    )
    longer = "CogVideoX takes the frames of its learned positions, found 17; the nearest is 9"
    for frames, size, message in ((9, (48, 32), other), (17, SIZE, longer)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            spec.latent_shape(frames, *size)


def test_prompts_with_too_many_tokens_are_told(folder):
    long = " ".join(["red"] * 40)
    assert CogVideoX(str(folder("5b"))).prompt_problems(["a red ball", long]) == [
        f"'{long[:60]}...' has 121 tokens; this checkpoint reads 48"
    ]


@pytest.mark.parametrize(
    ("flavour", "own", "other"), [("2b", "fp16", "bf16"), ("5b", "bf16", "fp16")]
)
def test_each_model_has_its_own_half_precision(folder, flavour, own, other):
    spec = CogVideoX(str(folder(flavour)))
    assert spec.precision_problem("fp32") is None
    assert spec.precision_problem(own) is None
    which = "with rotary positions (5B, 1.5)" if own == "bf16" else "without rotary positions (2B)"
    assert spec.precision_problem(other) == (
        f"CogVideoX {which} was trained in {own}, and in {other} it is known to make numbers that"
        f' are not finite; use "{own}", or "fp32"'
    )


@pytest.mark.parametrize(
    ("config", "layers", "parameters"), [("2b", 180, 133_228_800), ("5b", 252, 298_432_512)]
)
def test_glora_on_the_published_sizes_has_as_many_parameters_as_released(
    config, layers, parameters
):
    backbone = CogVideoX("random", config=config).load(META, torch.bfloat16)
    (adapter,) = attach_adapters(
        {"joint": Component("glora", GLoRA("visual", rank=128))}, backbone, seed=0
    ).values()
    assert len(backbone.targets("visual")) == layers
    assert sum(weight.numel() for weight in adapter.parameters()) == parameters


@pytest.mark.parametrize(("config", "millions"), [("2b", 1693.8), ("5b", 5570.3)])
def test_the_published_sizes_have_the_published_number_of_weights(config, millions):
    denoiser = CogVideoX("random", config=config).load(META, torch.bfloat16).denoiser
    assert round(sum(w.numel() for w in denoiser.parameters()) / 1e6, 1) == millions


def test_random_weights_may_have_fewer_blocks():
    whole, short = (CogVideoX("random", config="2b", layers=layers) for layers in (None, 1))
    assert len(short.load(META, torch.float32).blocks()) == 1
    assert short.denoiser_identity() != whole.denoiser_identity()
    assert short.codec_identity() == whole.codec_identity()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "x", "seed": 1}, "is of weights = \"random\" alone, found weights = 'x'"),
        ({"weights": "random", "variant": "fp16"}, "is of files, which random weights have not"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        CogVideoX(**options)


def test_a_stock_pipeline_is_adopted(stock):
    pipeline = stock("5b")
    backbone = CogVideoX.adopt(pipeline)
    assert (backbone.denoiser, backbone.scheduler) == (pipeline.transformer, pipeline.scheduler)
    assert CogVideoX.adopt(object()) is None


def test_a_model_that_begins_with_a_picture_is_refused(tmp_path):
    spec = CogVideoX(str(build(tmp_path, "5b", in_channels=8)))
    message = (
        f"backbone.weights: {str(tmp_path)!r} is told more than text, such as a picture to begin"
        " with; this backbone is for text-to-video, such as THUDM/CogVideoX-5b"
    )
    with pytest.raises(JtError, match=f"^{re.escape(message)}$"):
        spec.load(META, torch.float32)
    pipeline = CogVideoXImageToVideoPipeline.from_pretrained(tmp_path)
    assert CogVideoX.adopt(pipeline) is None
