"""ZeroScope and ModelScope checkpoints against the stock pipeline, and through the commands."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints.unet import SIZE, build_zeroscope
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, TextToVideoSDPipeline
from torch import Generator, Tensor

from jtcore import JtError, cli
from jtcore.engine import Engine
from jtcore.model import Model
from jtcore.recipe import Sampling
from jtcore.sample import Request, denoise
from jtcore.settings import EngineSettings
from jtplugins.adapters.glora import GLoRA
from jtplugins.backbones.pocket import Pocket
from jtplugins.backbones.zeroscope import ModelScope, ZeroScope

CPU, META = torch.device("cpu"), torch.device("meta")
PROMPTS = ("A red wug jumps, slowly!", "a dog on grass", "")
NEGATIVE = "bad quality"
# diffusers has numpy read tensors in a way that numpy 2 deprecates
numpy_reads = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def zeroscope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored as on the hub: .bin of float16, and a tokenizer of words and merges."""
    return build_zeroscope(tmp_path_factory.mktemp("zeroscope"), bins=True)


@pytest.fixture(scope="module")
def modelscope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In safetensors."""
    return build_zeroscope(tmp_path_factory.mktemp("modelscope"), seed=1)


@pytest.fixture(scope="module", params=["zeroscope", "modelscope"])
def spec(request: pytest.FixtureRequest) -> ZeroScope:
    kinds = {"zeroscope": ZeroScope, "modelscope": ModelScope}
    return kinds[request.param](str(request.getfixturevalue(request.param)))


@pytest.fixture(scope="module")
def stock(spec: ZeroScope) -> TextToVideoSDPipeline:
    pipeline = TextToVideoSDPipeline.from_pretrained(spec.weights, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.enable_slicing()
    pipeline.unet.requires_grad_(False)  # it sums otherwise where weights require any
    return pipeline


@pytest.fixture
def damaged(zeroscope: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(zeroscope, tmp_path / "damaged")


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_embeddings_are_those_of_the_stock_pipeline(spec, stock):
    encoder = spec.load_text_encoder(CPU)
    for prompt in PROMPTS:
        expected, negative = stock.encode_prompt(prompt, CPU, 1, True, NEGATIVE)
        assert torch.equal(encoder.embed([prompt]), expected)
        assert torch.equal(encoder.embed([NEGATIVE]), negative)


@pytest.mark.parametrize("frames", [1, 3], ids=["image", "video"])
def test_latents_and_pixels_are_those_of_the_stock_vae(spec, stock, frames):
    pixels = torch.rand(2, 3, frames, SIZE, SIZE, generator=seeded()) * 2 - 1
    codec = spec.load_codec(CPU)
    with torch.no_grad():
        moments = [stock.vae.encode(clip.transpose(0, 1)).latent_dist for clip in pixels]
        rng = seeded(1)
        expected = torch.stack([each.sample(rng).transpose(0, 1) for each in moments]) * 0.18215
        latents = codec.encode(pixels, seeded(1))
        decoded = stock.decode_latents(latents)
    assert torch.equal(latents, expected)
    assert torch.equal(codec.decode(latents), decoded.clamp(-1, 1))


@pytest.mark.parametrize("height", [SIZE, 2 * SIZE], ids=["of the VAE's size", "larger"])
def test_tiles_are_those_of_the_stock_vae_and_of_large_frames_alone(zeroscope, height):
    whole, tiled = (
        ZeroScope(str(zeroscope), tiling=tiling).load_codec(CPU) for tiling in (False, True)
    )
    pixels = torch.rand(1, 3, 2, height, SIZE, generator=seeded()) * 2 - 1
    vae = AutoencoderKL.from_pretrained(zeroscope / "vae", use_safetensors=False).eval()
    vae.enable_tiling()
    vae.enable_slicing()
    with torch.no_grad():
        frames = vae.encode(pixels[0].transpose(0, 1)).latent_dist.sample(seeded(1)) * 0.18215
        shown = vae.decode(1 / 0.18215 * frames).sample.transpose(0, 1).clamp(-1, 1)
    latents = tiled.encode(pixels, seeded(1))
    assert torch.equal(latents[0], frames.transpose(0, 1))
    torch.testing.assert_close(tiled.decode(latents)[0], shown)
    acts = height > SIZE
    assert torch.equal(whole.encode(pixels, seeded(1)), latents) is not acts
    assert torch.equal(whole.decode(latents), tiled.decode(latents)) is not acts


def test_tiling_is_of_the_codec_alone(zeroscope):
    whole, tiled = (ZeroScope(str(zeroscope), tiling=tiling) for tiling in (False, True))
    assert whole.codec_identity() != tiled.codec_identity()
    assert whole.denoiser_identity() == tiled.denoiser_identity()


def sampled(spec: ZeroScope, settings: Sampling, prompt: str, seed: int) -> Tensor:
    """By our core, with an adapter that would spoil everything, were it not off."""
    backbone, encoder = spec.load(CPU, torch.float32), spec.load_text_encoder(CPU)
    adapter = GLoRA("visual", rank=2).attach(backbone, {})
    for weight in adapter.parameters():
        torch.nn.init.constant_(weight, torch.nan)
    texts = {caption: encoder.embed([caption])[0] for caption in (prompt, settings.negative)}
    model = Model(backbone, {"joint": adapter}, texts, Engine(EngineSettings(device="cpu")))
    shape = spec.latent_shape(settings.frames, *settings.size)
    return denoise([Request(prompt, seed, "", {})], settings, model, shape)


@numpy_reads
@pytest.mark.parametrize(
    ("scheduler", "steps", "guidance"),
    [("ddim", 5, 1.0), ("ddim", 5, 9.0), ("dpm", 5, 9.0), ("dpm", 16, 9.0)],  # 15 are few to dpm
)
def test_samples_are_those_of_the_stock_pipeline(spec, stock, scheduler, steps, guidance):
    settings = Sampling(
        PROMPTS, 3, (SIZE, 2 * SIZE), steps, scheduler, guidance=guidance, negative=NEGATIVE
    )
    parts = dict(stock.components)
    if scheduler == "dpm":
        parts["scheduler"] = DPMSolverMultistepScheduler.from_config(stock.scheduler.config)
    pipeline = TextToVideoSDPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPTS[0],
        SIZE,
        2 * SIZE,
        num_frames=3,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt=NEGATIVE,
        generator=seeded(7),
        output_type="latent",
    ).frames
    assert torch.equal(sampled(spec, settings, PROMPTS[0], 7), expected)


def test_ddim_is_what_is_sampled_with_unless_said(spec):
    backbone = spec.load(META, torch.float32)
    assert type(backbone.sampler(30).scheduler).__name__ == "DDIMScheduler"


def test_a_bypassing_backbone_answers_otherwise_for_images_alone(spec):
    native, bypassing = (
        type(spec)(spec.weights, image_mode=mode).load(CPU, torch.float32)
        for mode in ("native", "bypass_temporal")
    )
    for frames, alike in ((1, False), (2, True)):
        latents = torch.randn(1, 4, frames, 4, 4, generator=seeded())
        question = latents, torch.tensor([400]), torch.randn(1, 5, 16, generator=seeded())
        assert torch.equal(native.predict(*question), bypassing.predict(*question)) is alike


def test_identities_follow_what_they_are_of(spec, damaged):
    other = ZeroScope(str(damaged))
    before = other.denoiser_identity(), other.text_identity(), other.codec_identity()
    bypassing = ZeroScope(str(damaged), image_mode="bypass_temporal")
    assert bypassing.denoiser_identity() != other.denoiser_identity()
    assert bypassing.text_identity() == other.text_identity()
    config = damaged / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    after = other.denoiser_identity(), other.text_identity(), other.codec_identity()
    assert [one == two for one, two in zip(before, after, strict=True)] == [False, True, True]


def test_sizes_are_multiples_of_what_vae_and_unet_halve(spec):
    assert spec.latent_shape(5, 32, 48) == (4, 5, 4, 6)
    message = "this UNet takes multiples of 16 px, found 30x50; the nearest is 32x48"
    with pytest.raises(ValueError, match=f"^{message}$"):
        spec.latent_shape(1, 30, 50)
    with pytest.raises(ValueError, match=r"the nearest is 16x16$"):
        spec.latent_shape(1, 2, 2)


@pytest.mark.parametrize("size", [(384, 384), (320, 576), (256, 256), (576, 1024)])
def test_published_sizes_fit_the_published_network(size):
    height, width = size
    assert ZeroScope("random").latent_shape(24, *size) == (4, 24, height // 8, width // 8)


def test_a_prompt_that_is_too_long_is_named_with_its_length(spec):
    long = "red " * 76
    assert spec.prompt_problems(["red " * 75, long]) == [f"{long!r} has 76 tokens; CLIP reads 75"]
    assert spec.load_text_encoder(CPU).embed(["red " * 75]).shape == (1, 77, 16)


def test_the_published_networks_have_as_many_parameters_as_the_papers_say():
    denoiser = ModelScope("random").load(META, torch.float32).denoiser
    vae = ModelScope("random").load_codec(META).vae
    found = [sum(w.numel() for w in network.parameters()) for network in (denoiser, vae)]
    assert found[0] / 1e6 == pytest.approx(1411.2, abs=0.05)
    assert found[1] == 83_653_863  # Stable Diffusion's


def test_random_weights_may_be_narrow_and_follow_the_seed():
    narrow = [
        ZeroScope("random", width=32, seed=seed).load(CPU, torch.float32) for seed in (0, 0, 1)
    ]
    first, again, other = (each.denoiser.conv_in.weight for each in narrow)
    assert first.shape[0] == 32 and torch.equal(first, again) and not torch.equal(first, other)
    question = torch.randn(1, 4, 2, 8, 8), torch.tensor([9]), torch.randn(1, 77, 1024)
    assert narrow[0].predict(*question).isfinite().all()
    assert narrow[0].targets("visual").keys() == published_names("visual")


def published_names(role: str) -> set[str]:
    return ZeroScope("random").load(META, torch.float32).targets(role).keys()


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        (
            "zeroscope",
            {"weights": "x/y", "width": 64},
            "backbone.width: is of weights = \"random\" alone, found weights = 'x/y'",
        ),
        (
            "modelscope",
            {"weights": "random", "variant": "fp16"},
            "backbone.variant: is of files, which random weights have not; leave it out",
        ),
        (
            "modelscope",
            {"weights": "random", "revision": "main"},
            "backbone.revision: is of files, which random weights have not; leave it out",
        ),
        (
            "zeroscope",
            {"weights": "random", "width": 48},
            "backbone.width: must be a multiple of 32, found 48",
        ),
    ],
)
def test_options_that_do_nothing_are_refused(table, write_recipe, capsys, kind, options, problem):
    recipe = write_recipe({**table, "backbone": {"kind": kind, **options}})
    assert cli.run([str(recipe), "--check"]) == 2
    assert problem in capsys.readouterr().err


def test_a_fine_tuned_network_may_predict_velocity(damaged):
    change_scheduler(damaged, prediction_type="v_prediction")
    assert ZeroScope(str(damaged)).load(META, torch.float32).prediction == "v"


def test_an_unknown_kind_of_prediction_is_refused(damaged):
    change_scheduler(damaged, prediction_type="sample")
    message = (
        "its scheduler's prediction_type: expected 'epsilon' or 'v_prediction', found 'sample'"
    )
    with pytest.raises(JtError, match=f"^{re.escape(message)}$"):
        ZeroScope(str(damaged)).load(META, torch.float32)


def change_scheduler(folder: Path, **options) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | options))


def test_another_scheduler_in_the_checkpoint_is_read_as_its_noise_schedule(damaged, zeroscope):
    change_scheduler(damaged, _class_name="PNDMScheduler", skip_prk_steps=True)
    times = torch.tensor([0, 500, 999])
    first, other = (
        ZeroScope(str(folder)).load(META, torch.float32) for folder in (damaged, zeroscope)
    )
    assert torch.equal(first.levels(times).signal, other.levels(times).signal)


def test_a_missing_denoiser_is_told_before_anything_is_computed(
    damaged, table, write_recipe, capsys
):
    shutil.rmtree(damaged / "unet")
    table["backbone"] = {"kind": "zeroscope", "weights": str(damaged)}
    assert cli.run([str(write_recipe(table)), "--check"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("backbone.weights: ") and "'unet'" in told


def test_another_kind_of_pipeline_is_refused_by_its_classes(damaged):
    config = damaged / "vae" / "config.json"
    config.write_text(config.read_text().replace("AutoencoderKL", "AutoencoderKLWan"))
    with pytest.raises(JtError, match="expected AutoencoderKL, found AutoencoderKLWan"):
        ZeroScope(str(damaged)).latent_shape(1, 32, 32)


def test_a_stock_pipeline_is_adopted_with_its_own_network(spec, stock):
    adopted = type(spec).adopt(stock)
    assert adopted.denoiser is stock.unet
    latents, text = torch.randn(1, 4, 2, 4, 4, generator=seeded()), torch.zeros(1, 5, 16)
    expected = spec.load(CPU, torch.float32).predict(latents, torch.tensor([3]), text)
    assert torch.equal(adopted.predict(latents, torch.tensor([3]), text), expected)


def test_what_is_no_unet_over_frames_is_not_adopted(spec, stock):
    assert type(spec).adopt(object()) is None
    assert type(spec).adopt(Pocket("random").load(META, torch.float32)) is None


@pytest.fixture
def recipe(table: dict, zeroscope: Path) -> dict:
    """JointTuner in two steps: a gated LoRA, AiT on the videos."""
    table["backbone"] = {"kind": "zeroscope", "weights": str(zeroscope)}
    table["engine"] = {"device": "cpu", "gradient_checkpointing": True}
    for data in table["data"].values():
        data["size"] = [SIZE, SIZE]
    table["stage"]["joint"] |= {"steps": 2, "lr": 0.01}
    table["sample"] |= {"size": [SIZE, SIZE], "negative": NEGATIVE}
    return table


def test_a_recipe_is_checked_run_and_sampled_from(recipe, write_recipe, jt_run, tmp_path, capsys):
    assert cli.run([str(write_recipe(recipe)), "--check"]) == 0, capsys.readouterr().err
    out = jt_run(recipe)
    assert {"adapted/00-seed0.mp4", "base/00-seed0.mp4"} <= videos(out / "samples")
    more = tmp_path / "more"
    options = ["--prompt", "a red dog", "--steps", "3", "--scheduler", "dpm", "--out", str(more)]
    assert cli.sample([str(out), *options]) == 0, capsys.readouterr().err
    assert videos(more) == {"adapted/00-seed0.mp4"}


def videos(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*.mp4")}


def test_training_is_the_same_with_and_without_checkpointing(recipe, jt_run):
    recipe["engine"]["gradient_checkpointing"] = False
    plain = jt_run(recipe, name="plain")
    recipe["engine"]["gradient_checkpointing"] = True
    checkpointed = jt_run(recipe, name="checkpointed")
    files = [sorted(out.rglob("joint*.safetensors")) for out in (plain, checkpointed)]
    assert len(files[0]) == len(files[1]) > 0
    for one, other in zip(*files, strict=True):
        assert_same_tensors(one, other)


def assert_same_tensors(one: Path, other: Path) -> None:
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(tensor.any() for name, tensor in first.items() if ".up." in name)


@pytest.mark.parametrize("path", ["data.subject.prompt", "sample.prompts"])
def test_the_check_names_captions_that_are_too_long(recipe, write_recipe, capsys, path):
    section, key = path.rsplit(".", 1)
    place = recipe["sample"] if section == "sample" else recipe["data"]["subject"]
    place[key] = ["red " * 80] if section == "sample" else "red " * 80
    assert cli.run([str(write_recipe(recipe)), "--check"]) == 2
    assert f"{path}: {'red ' * 80!r} has 80 tokens; CLIP reads 75" in capsys.readouterr().err
