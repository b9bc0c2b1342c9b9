"""Wan out of a checkpoint: text, latents, predictions and samples are those of stock diffusers."""

import json
import re
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import pytest
import torch
from checkpoints.wan import build_wan
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Generator, Tensor

from jtcore import JtError, cli
from jtcore.engine import Engine
from jtcore.model import Model
from jtcore.recipe import Sampling
from jtcore.sample import Request, denoise
from jtcore.settings import EngineSettings
from jtplugins.backbones.wan import Wan

CPU, META = torch.device("cpu"), torch.device("meta")
PROMPTS = ["a red dog plays guitar", "", "  a cat &amp;amp; a\nball\t"]
LONGEST = " ".join(["a"] * 511)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return build_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def spec(folder) -> Wan:
    return Wan(str(folder))


@pytest.fixture(scope="module")
def stock(folder) -> WanPipeline:
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def with_config(folder: Path, part: str, changes: dict, tmp_path: Path) -> Wan:
    """A copy of a checkpoint with another configuration; None takes a key away."""
    copy = copytree(folder, tmp_path / "changed")
    file = copy / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: v for key, v in config.items() if v is not None}))
    return Wan(str(copy))


@pytest.mark.parametrize("prompt", [*PROMPTS, LONGEST], ids=["words", "none", "unclean", "longest"])
@torch.no_grad()
def test_embeddings_are_those_of_the_stock_pipeline(spec, stock, prompt):
    expected, _ = stock.encode_prompt(
        prompt, do_classifier_free_guidance=False, max_sequence_length=512
    )
    assert torch.equal(spec.load_text_encoder(CPU).embed([prompt]), expected)


def test_what_follows_a_prompt_is_zero(spec):
    text = spec.load_text_encoder(CPU).embed(["", "a cat"])
    assert text.shape == (2, 512, 32)
    assert text[0].count_nonzero() == text[0, :1].count_nonzero() > 0
    assert text[1].count_nonzero() > text[0].count_nonzero()


def test_a_prompt_that_is_too_long_is_told_and_not_cut(spec):
    assert spec.prompt_problems([LONGEST, *PROMPTS]) == []
    (problem,) = spec.prompt_problems([f"{LONGEST} a"])
    assert problem == f"'{LONGEST[:60]}...' has 513 tokens; this checkpoint reads 512"


@pytest.mark.parametrize("frames", [1, 9])
def test_latents_are_those_of_the_stock_vae_normalised(spec, stock, frames):
    pixels = draw(2, 3, frames, 32, 48).clamp(-1, 1)
    found = spec.load_codec(CPU).encode(pixels, seeded())
    mean = torch.tensor(stock.vae.config.latents_mean).view(1, 16, 1, 1, 1)
    deviation = torch.tensor(stock.vae.config.latents_std).view(1, 16, 1, 1, 1)
    with torch.no_grad():
        expected = stock.vae.encode(pixels).latent_dist.sample(generator=seeded())
    torch.testing.assert_close(found * deviation + mean, expected)
    assert found.shape[1:] == spec.latent_shape(frames, 32, 48)


def test_decoded_latents_are_the_stock_pipelines_video(spec, stock):
    def generate(output: str) -> Tensor:
        return stock(
            "a cat",
            height=32,
            width=48,
            num_frames=9,
            num_inference_steps=1,
            guidance_scale=1,
            generator=seeded(),
            output_type=output,
        ).frames

    found = spec.load_codec(CPU).decode(generate("latent"))
    expected = generate("pt").transpose(1, 2)  # in [0, 1]
    assert torch.equal((found * 0.5 + 0.5).clamp(0, 1), expected)


def test_tiles_are_those_of_the_stock_vae(folder, stock, tmp_path):
    latents = draw(1, 16, 1, 34, 40)
    whole, tiled = (
        Wan(str(folder), tiling=tiling).load_codec(CPU).decode(latents) for tiling in (False, True)
    )
    vae = AutoencoderKLWan.from_pretrained(folder / "vae")
    vae.enable_tiling()
    mean = torch.tensor(vae.config.latents_mean).view(1, 16, 1, 1, 1)
    deviation = torch.tensor(vae.config.latents_std).view(1, 16, 1, 1, 1)
    with torch.no_grad():
        expected = vae.decode(latents / (1 / deviation) + mean).sample
    assert torch.equal(tiled, expected)
    assert not torch.equal(tiled, whole)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((4, 32, 32), "Wan takes 4N+1 frames, at most 253, found 4; the nearest is 5"),
        ((6, 32, 32), "Wan takes 4N+1 frames, at most 253, found 6; the nearest is 5"),
        ((300, 32, 32), "Wan takes 4N+1 frames, at most 253, found 300; the nearest is 253"),
        (
            (5, 24, 10),
            "Wan takes multiples of 16 px, at most 1024, found 24x10; the nearest is 32x16",
        ),
        (
            (5, 480, 2000),
            "Wan takes multiples of 16 px, at most 1024, found 480x2000; the nearest is 480x1024",
        ),
    ],
)
def test_an_impossible_clip_is_refused_with_the_nearest_that_fits(spec, size, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        spec.latent_shape(*size)


def test_a_published_clip_has_the_published_latents(folder, tmp_path):
    assert Wan("random").latent_shape(81, 480, 832) == (16, 21, 60, 104)
    older = {"scale_factor_temporal": None, "scale_factor_spatial": None}
    spec = with_config(folder, "vae", older, tmp_path)
    assert spec.latent_shape(9, 32, 48) == (16, 3, 4, 6)


def test_the_denoiser_has_the_weights_and_types_of_the_stock_one(spec, folder):
    for dtype in (torch.float32, torch.bfloat16):
        stock = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=dtype)
        found, expected = spec.load(CPU, dtype).denoiser.state_dict(), stock.state_dict()
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            assert found[name].dtype == weight.dtype and torch.equal(found[name], weight)


@torch.no_grad()
def test_in_bfloat16_under_autocast_it_predicts_what_stock_does_without(spec, folder):
    stock = WanTransformer3DModel.from_pretrained(
        folder / "transformer", torch_dtype=torch.bfloat16
    )
    latents, text, times = draw(1, 16, 3, 4, 6), draw(1, 512, 32), torch.tensor([421.5])
    expected = stock(latents.bfloat16(), times, text.bfloat16()).sample
    with torch.autocast("cpu", torch.bfloat16):
        found = spec.load(CPU, torch.bfloat16).predict(latents, times, text)
    assert torch.equal(found, expected.float())


def unipc(shift: float) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


SCHEDULERS = {"unipc": unipc, "euler": lambda shift: FlowMatchEulerDiscreteScheduler(shift=shift)}
TEXTS = {"prompt": "a red dog", "negative": "bad quality"}


@pytest.mark.parametrize("shift", [None, 5.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_samples_are_those_of_the_stock_pipeline(folder, stock, scheduler, guidance, shift):
    stock.scheduler = SCHEDULERS[scheduler](shift or 3.0)  # 3.0 is the checkpoint's
    expected = stock(
        TEXTS["prompt"],
        TEXTS["negative"],
        height=32,
        width=48,
        num_frames=5,
        num_inference_steps=4,
        guidance_scale=guidance,
        generator=seeded(7),
        output_type="latent",
    ).frames
    settings = Sampling(
        (TEXTS["prompt"],),
        5,
        (32, 48),
        steps=4,
        scheduler=scheduler,
        guidance=guidance,
        negative=TEXTS["negative"],
    )
    found = sample(Wan(str(folder), shift=shift), settings, seed=7)
    if guidance == 1:
        assert torch.equal(found, expected)
    else:  # the stock pipeline asks for each half of guidance alone: sums are rounded otherwise
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def sample(spec: Wan, settings: Sampling, seed: int) -> Tensor:  # (1, C, F, H, W)
    engine = Engine(EngineSettings("cpu"))
    embed = spec.load_text_encoder(CPU).embed
    texts = {caption: embed([caption])[0] for caption in settings.captions}
    model = Model(spec.load(CPU, torch.float32), {}, texts, engine)
    request = Request(settings.prompts[0], seed, "video.mp4", {})
    return denoise([request], settings, model, spec.latent_shape(settings.frames, *settings.size))


def test_a_checkpoint_made_for_euler_is_sampled_by_it_with_its_shift(folder, tmp_path):
    (copytree(folder, tmp_path / "copy") / "scheduler" / "scheduler_config.json").unlink()
    FlowMatchEulerDiscreteScheduler(shift=4.0).save_pretrained(tmp_path / "copy" / "scheduler")
    spec = Wan(str(tmp_path / "copy"))
    backbone = spec.load(META, torch.float32)
    assert backbone.shift == 4.0
    assert type(backbone.sampler(3).scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"


def test_the_shift_is_the_checkpoints_unless_the_recipe_says_another(tmp_path):
    folder = str(build_wan(tmp_path, flow_shift=5.0))
    assert Wan(folder).load(META, torch.float32).shift == 5.0
    assert Wan(folder, shift=1.0).load(META, torch.float32).shift == 1.0
    assert Wan("random").load(META, torch.float32).shift == 3.0


def test_random_weights_follow_the_seed_and_have_as_many_blocks_as_asked():
    def weights(seed: int) -> Tensor:
        backbone = Wan("random", layers=1, seed=seed).load(CPU, torch.bfloat16)
        assert len(backbone.blocks()) == 1
        return backbone.denoiser.blocks[0].attn1.to_q.weight

    assert not torch.equal(weights(0), weights(1))


def test_random_text_has_the_shape_that_the_denoiser_reads():
    spec = Wan("random")
    text = spec.load_text_encoder(CPU).embed(["a cat", LONGEST * 2])
    assert text.shape == (2, 512, 4096)
    assert spec.prompt_problems([LONGEST * 2]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 2}, 'is of weights = "random" alone, found weights = '),
        ({"config": "14b"}, 'is of weights = "random" alone, found weights = '),
        ({"seed": 1}, 'is of weights = "random" alone, found weights = '),
        (
            {"weights": "random", "variant": "fp16"},
            "is of files, which random weights have not; leave it out",
        ),
        (
            {"weights": "random", "revision": "main"},
            "is of files, which random weights have not; leave it out",
        ),
    ],
)
def test_options_of_other_weights_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Wan(**options)


def test_fp16_is_refused_with_what_to_use_instead(spec):
    assert [spec.precision_problem(each) for each in ("fp32", "bf16")] == [None, None]
    assert spec.precision_problem("fp16") == (
        "Wan was trained in bf16, and black videos have been reported of it in fp16;"
        ' use "bf16", or "fp32"'
    )


def test_a_model_that_begins_with_an_image_is_refused(folder, tmp_path):
    spec = with_config(folder, "transformer", {"in_channels": 36}, tmp_path)
    message = (
        f"backbone.weights: {spec.weights!r} is told more than text, such as a picture to begin"
        " with; this backbone is for text-to-video, such as Wan-AI/Wan2.1-T2V-14B-Diffusers"
    )
    with pytest.raises(JtError, match=f"^{re.escape(message)}$"):
        spec.load(META, torch.float32)


def test_a_scheduler_without_a_known_shift_is_refused(folder, tmp_path):
    spec = with_config(folder, "scheduler", {"_class_name": "DDIMScheduler"}, tmp_path)
    message = (
        f"backbone.weights: 'scheduler' of {spec.weights!r}: expected UniPCMultistepScheduler or"
        " FlowMatchEulerDiscreteScheduler, found DDIMScheduler"
    )
    with pytest.raises(JtError, match=f"^{re.escape(message)}$"):
        spec.load(META, torch.float32)


def test_identities_change_with_what_shapes_the_numbers(folder, spec, monkeypatch):
    path = str(folder)
    assert Wan(path).denoiser_identity() == spec.denoiser_identity()
    assert Wan(path, shift=5.0).denoiser_identity() == spec.denoiser_identity()  # for `predict`
    assert Wan(path, tiling=True).codec_identity() != spec.codec_identity()
    random = [Wan("random"), Wan("random", config="14b"), Wan("random", layers=2)]
    assert len({each.denoiser_identity() for each in random}) == 3
    assert Wan("random", config="1.3b", seed=0).denoiser_identity() == random[0].denoiser_identity()
    before = spec.text_identity()
    monkeypatch.setattr("diffusers.utils.is_ftfy_available", lambda: True)
    assert spec.text_identity() != before


def test_a_stock_pipeline_is_adopted_with_its_denoiser_and_shift(spec, stock):
    stock.scheduler = unipc(5.0)
    backbone = Wan.adopt(stock)
    assert backbone.denoiser is stock.transformer
    assert backbone.shift == 5.0
    asked = draw(1, 16, 2, 4, 4), torch.tensor([500.0]), draw(1, 512, 32)
    with torch.no_grad():
        expected = spec.load(CPU, torch.float32).predict(*asked)
        assert torch.equal(backbone.predict(*asked), expected)


def test_pipelines_of_other_kinds_are_not_adopted(stock):
    with_image = WanTransformer3DModel.from_config({**stock.transformer.config, "in_channels": 36})
    others = [
        SimpleNamespace(),
        SimpleNamespace(transformer=stock.vae),
        SimpleNamespace(transformer=with_image),
        SimpleNamespace(transformer=stock.transformer, transformer_2=stock.transformer),
    ]
    assert [Wan.adopt(pipeline) for pipeline in others] == [None] * 4


@pytest.fixture(scope="module")
def recipe(folder, data, tmp_path_factory) -> Path:
    """JointTuner in two steps."""
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(f"""
seed = 1
backbone = {{ kind = "wan", weights = "{folder}", shift = 5.0 }}
data.subject = {{ source = "{data / "subject"}", size = [32, 32] }}
data.motion = {{ source = "{data / "motion"}", size = [32, 32], frames = 5 }}
adapter.joint = {{ kind = "glora", targets = "visual", rank = 2 }}
engine = {{ device = "cpu", gradient_checkpointing = true }}

[stage.joint]
steps = 2
lr = 0.01
branch.appearance = {{ data = ["subject"], adapters = ["joint"], losses.error.kind = "diffusion" }}
branch.motion = {{ data = ["motion"], adapters = ["joint"], losses.shifted.kind = "ait" }}

[sample]
prompts = ["a red dog"]
frames = 5
size = [32, 32]
steps = 2
guidance = 5.0
""")
    return path


def test_a_recipe_is_checked_trained_and_sampled(recipe, tmp_path, capsys):
    assert cli.run([str(recipe), "--check"]) == 0, capsys.readouterr().err
    run = tmp_path / "run"
    assert cli.run([str(recipe), "--out", str(run), "--quiet"]) == 0, capsys.readouterr().err
    again = tmp_path / "again"
    arguments = [str(run), "--prompt", "a red dog", "--out", str(again), "--quiet"]
    assert cli.sample(arguments) == 0, capsys.readouterr().err
    made, remade = (sorted(each.rglob("*adapted/*.mp4")) for each in (run, again))
    assert [file.read_bytes() for file in made] == [file.read_bytes() for file in remade]
    assert len(made) == 1


def test_a_recipe_that_wan_cannot_do_is_told_of_all_at_once(recipe, capsys):
    wrong = ["engine.precision=fp16", "data.motion.frames=4", "sample.scheduler=ddim"]
    options = [argument for each in wrong for argument in ("--set", each)]
    assert cli.run([str(recipe), "--check", *options]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "data.motion.frames: Wan takes 4N+1 frames, at most 253, found 4; the nearest is 5",
        "engine.precision: Wan was trained in bf16, and black videos have been reported of it in"
        ' fp16; use "bf16", or "fp32"',
        "sample.scheduler: unknown scheduler 'ddim'; there are euler, unipc",
    ]
