"""Initial noise out of a video: inverted, sampled back, and asked for in a recipe."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from attrs import frozen
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Generator, Tensor, nn

from jtcore import cli
from jtcore.cache import Cache
from jtcore.data import Data
from jtcore.diffusion import Levels, Prediction
from jtcore.engine import Engine
from jtcore.inversion import invert, load_reference
from jtcore.model import Model
from jtcore.recipe import NoisePrior, Sampling
from jtcore.sample import denoise, requests
from jtcore.settings import EngineSettings
from jtcore.stream import load_stream
from jtplugins.backbones._cogvideox import SCHEDULERS
from jtplugins.backbones._samplers import Kind, sampler
from jtplugins.backbones.pocket import Pocket

CPU = torch.device("cpu")


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


# A denoiser that is right about data from a Gaussian, whose noise is known in closed form


@frozen(eq=False)
class Gaussian:
    """The backbone for latents from N(mean, deviation^2), each of its own."""

    prediction: Prediction
    mean: Tensor  # (C, F, H, W)
    deviation: Tensor  # (C, F, H, W)
    scheduler: DDIMScheduler
    denoiser: nn.Module = nn.Identity()

    def levels(self, times: Tensor) -> Levels:
        if self.prediction == "flow":
            return Levels(1 - times.double(), times.double())
        alpha_bar = self.scheduler.alphas_cumprod.double()[times.long()]
        return Levels(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())

    def predict(self, latents: Tensor, times: Tensor, text: Tensor) -> Tensor:
        signal, sigma = self.levels(times).over(latents.double())
        off = latents - signal * self.mean
        variance = (signal * self.deviation) ** 2 + sigma**2
        noise = sigma / variance * off
        clean = self.mean + signal * self.deviation**2 / variance * off
        answers = {"epsilon": noise, "v": signal * noise - sigma * clean, "flow": noise - clean}
        return answers[self.prediction].float()

    def sampler(self, steps: int, scheduler: str | None = None):
        if self.prediction == "flow":
            return Straight(tuple(torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]))
        return sampler(self.scheduler, {"ddim": Kind("DDIMScheduler")}, None, steps, False)


@frozen(eq=False)
class Straight:
    """Euler's way along a flow."""

    times: Sequence[Tensor]

    def step(self, prediction: Tensor, index: int, latents: Tensor, rng: Generator) -> Tensor:
        return latents - prediction / len(self.times)


def gaussian(prediction: Prediction) -> Gaussian:
    scheduler = DDIMScheduler(
        prediction_type={"epsilon": "epsilon", "v": "v_prediction", "flow": "epsilon"}[prediction],
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=prediction == "v",
        timestep_spacing="trailing" if prediction == "v" else "leading",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    return Gaussian(prediction, draw(2, 3, 4, 4, seed=3), 0.3 + torch.rand(2, 3, 4, 4), scheduler)


def model_of(backbone, texts: dict[str, Tensor] | None = None) -> Model:
    texts = {"": torch.zeros(1, 1)} if texts is None else texts
    return Model(backbone, {}, texts, Engine(EngineSettings(device="cpu")))


def back(backbone, noise: Tensor, steps: int, text: Tensor) -> Tensor:  # (C, F, H, W)
    """Sampled from `noise` (C, F, H, W), without guidance."""
    way, latents = backbone.sampler(steps), noise[None]
    for index, time in enumerate(way.times):
        with torch.no_grad():
            answer = backbone.predict(latents, time[None], text)
        latents = way.step(answer, index, latents, seeded())
    return latents[0]


every_prediction = pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])


@every_prediction
def test_the_noise_of_a_gaussian_is_how_far_a_sample_lies_from_its_mean(prediction):
    backbone = gaussian(prediction)
    clean = backbone.mean + backbone.deviation * draw(2, 3, 4, 4)

    found = invert(clean, NoisePrior("", steps=500), model_of(backbone))
    last = backbone.levels(backbone.sampler(500).times[0][None])
    signal, sigma = last.over(clean[None])
    spread = ((signal * backbone.deviation) ** 2 + sigma**2).sqrt()  # of latents at that level
    expected = signal * backbone.mean + spread * (clean - backbone.mean) / backbone.deviation
    torch.testing.assert_close(found, expected[0], atol=0.05, rtol=0.02)


@every_prediction
def test_inverted_noise_is_sampled_to_the_latents_that_it_came_from(prediction):
    backbone = gaussian(prediction)
    clean = backbone.mean + backbone.deviation * draw(2, 3, 4, 4)
    text = torch.zeros(1, 1)

    def error(steps: int) -> float:
        noise = invert(clean, NoisePrior("", steps=steps), model_of(backbone))
        return float((back(backbone, noise, steps, text) - clean).square().mean().sqrt())

    assert error(500) < 0.02
    assert error(500) < error(50) / 4 < error(10) / 8  # it is of first order


@every_prediction
def test_a_denoiser_that_knows_one_video_is_led_back_to_it(prediction):
    backbone = gaussian(prediction)
    sure = Gaussian(prediction, backbone.mean, torch.zeros(2, 3, 4, 4), backbone.scheduler)

    noise = invert(sure.mean, NoisePrior("", steps=20), model_of(sure))
    assert (noise.abs() < sure.mean.abs() + 1e-4).all()  # it is a part of the video
    found = back(sure, noise, 20, torch.zeros(1, 1))
    torch.testing.assert_close(found, sure.mean, atol=1e-4, rtol=1e-4)


def test_inversion_is_that_of_diffusers():
    backbone, steps = gaussian("epsilon"), 50
    clean = backbone.mean + draw(2, 3, 4, 4)

    stock = DDIMInverseScheduler.from_config(backbone.scheduler.config)
    stock.set_timesteps(steps)
    latents = clean[None]
    for time in stock.timesteps:
        answer = backbone.predict(latents, time[None], torch.zeros(1, 1))
        latents = stock.step(answer, time, latents).prev_sample
    found = invert(clean, NoisePrior("", steps=steps), model_of(backbone))
    torch.testing.assert_close(found[None], latents)


# Pocket


@pytest.fixture(scope="module")
def motion(data) -> Path:
    return min((data / "motion").glob("*.mp4"))


def prior_of(video: Path, **options) -> Sampling:
    plain = {"frames": 8, "size": (24, 24), "steps": 25, "guidance": 1.0, "prompts": ("",)}
    return Sampling(**plain, noise_prior=NoisePrior(str(video), steps=25, **options))


@pytest.fixture(scope="module")
def pocket() -> Model:
    """With the weights that it is shipped with."""
    spec = Pocket()
    (text,) = spec.load_text_encoder(CPU).embed([""])
    return model_of(spec.load(CPU, torch.float32), {"": text})


def test_a_video_is_sampled_from_its_own_noise(pocket, motion, tmp_path):
    asked = prior_of(motion, share=1.0)
    clean = load_reference(asked, Pocket(), Cache(tmp_path), CPU, print)
    inverted = invert(clean, asked.noise_prior, pocket)

    def error(inverted: Tensor | None) -> float:
        found = denoise(list(requests(asked, {})), asked, pocket, clean.shape, inverted)
        return float((found[0] - clean).square().mean().sqrt())

    assert error(inverted) < 0.3 * error(None)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_samplers_begin_with_noise_of_unit_variance_as_mixing_takes_it(pocket, scheduler):
    noise = pocket.backbone.sampler(5, scheduler).start((1, 48, 8, 4, 4), seeded())

    assert torch.equal(noise, draw(1, 8, 48, 4, 4, seed=0).transpose(1, 2))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_is_of_the_variance(pocket, share):
    asked = prior_of(Path("x.mp4"), share=share)
    inverted, begun = draw(48, 8, 4, 4, seed=5), []
    hook = pocket.backbone.denoiser.register_forward_pre_hook(
        lambda module, inputs: begun.append(inputs[0].transpose(1, 2))
    )
    denoise(list(requests(asked, {})), asked, pocket, inverted.shape, inverted)
    hook.remove()

    fresh = draw(1, 8, 48, 4, 4, seed=0).transpose(1, 2)
    expected = share**0.5 * inverted[None] + (1 - share) ** 0.5 * fresh
    assert torch.equal(begun[0], expected)


def test_the_latents_are_those_that_training_on_the_video_has(motion, tmp_path):
    asked, said = prior_of(motion), []
    loads = []

    class Counting(Pocket):
        def load_codec(self, device):
            loads.append(device)
            return super().load_codec(device)

    spec, cache = Counting("random"), Cache(tmp_path)
    latents = load_reference(asked, spec, cache, CPU, said.append)
    data = Data(str(motion), (24, 24), prompt="", frames=8)
    stream = load_stream("motion", data, spec, cache, CPU, said.append)
    assert torch.equal(stream.items[0].latents[0], latents)
    assert len(loads) == 1 and not said


# In a recipe


def videos(run: Path, seeds: Sequence[int] = (0, 1)) -> list[bytes]:
    return [(run / f"samples/base/00-seed{seed}.mp4").read_bytes() for seed in seeds]


def test_a_whole_share_leaves_nothing_to_the_seed(table, jt_run, motion):
    table["sample"] |= {"seeds": [0, 1]}
    plain = jt_run(table, "--quiet", name="plain")

    def run(share: float) -> Path:
        table["sample"]["noise_prior"] = {"video": str(motion), "share": share, "steps": 4}
        return jt_run(table, "--quiet", name=f"share{share}")

    assert videos(run(0.0)) == videos(plain)
    half, whole = videos(run(0.5)), videos(run(1.0))
    assert whole[0] == whole[1]
    assert len({*videos(plain), *half, *whole}) == 5


def test_what_samples_began_with_is_told_with_them(table, jt_run, motion):
    prior = {"video": str(motion), "share": 0.25, "steps": 2}
    schedule = {"unit": "step", "at": [1.0], "scales": [0.5, 1.0], "on": "prompted"}
    table["sample"] |= {"noise_prior": prior, "schedule": {"joint": schedule}}
    table["sample"] |= {"dynamic_guidance": True, "scheduler": "euler", "batch": 2}
    run = jt_run(table, "--quiet")

    base, adapted = json.loads((run / "metrics.json").read_text())["samples"]
    told = {"noise_prior": prior | {"prompt": ""}, "dynamic_guidance": True, "scheduler": "euler"}
    plain = {"file", "model", "prompt", "seed", "scales", "metrics"}
    assert {key: base[key] for key in base.keys() - plain} == told | {"batch": 2}
    assert adapted["schedule"] == {"joint": schedule}
    line = (run / "report.md").read_text().splitlines()[2]
    assert line.partition(". Samples: ")[2] == (
        f"scheduler euler, dynamic guidance, batches of 2, noise that is 25% of {motion},"
        " scale of joint times 0.5, 1 parted at step 1 on the prompted half"
    )


@pytest.fixture
def refused(write_recipe, capsys) -> Callable[..., list[str]]:
    """What the check of a table says."""

    def told(table: dict) -> list[str]:
        assert cli.run([str(write_recipe(table)), "--check"]) == 2
        return capsys.readouterr().err.splitlines()

    return told


def test_all_that_is_wrong_with_a_prior_is_told_at_once(table, refused, tmp_path):
    nowhere = tmp_path / "nowhere.mp4"
    table["backbone"] = {"kind": "pocket", "weights": "random"}
    table["sample"] |= {"scheduler": "dmp", "steps": 1001}
    table["sample"]["noise_prior"] = {"video": str(nowhere), "steps": 1002, "prompt": "a guitar"}

    assert refused(table) == [
        f"sample.noise_prior.video: {nowhere}: cannot be read: No such file or directory",
        "sample.noise_prior.prompt: 'a guitar' has words that pocket does not know: 'guitar';"
        " see `jt-pocket list`",
        "sample.steps: 1001 steps of denoising; the schedule has 1000",
        "sample.scheduler: unknown scheduler 'dmp'; did you mean 'dpm'?",
        "sample.noise_prior.steps: 1002 steps of denoising; the schedule has 1000",
    ]


def test_a_video_with_fewer_frames_than_are_sampled_is_told(table, refused, data):
    picture = min((data / "subject").glob("*.png"))
    table["sample"]["noise_prior"] = {"video": str(picture)}

    assert refused(table) == [
        f"sample.noise_prior.video: {picture}: too short: it has 1, and 3 frames are sampled"
    ]


def test_a_resumed_run_refuses_another_video(table, jt_run, motion, data, tmp_path, capsys):
    own = Path(shutil.copy(motion, tmp_path / "own.mp4"))
    table["sample"]["noise_prior"] = {"video": str(own), "steps": 2}
    run = jt_run(table, "--quiet")
    (run / "result.json").unlink()

    other = max((data / "motion").glob("*.mp4"))
    shutil.copy(other, own)
    assert cli.run(["--resume", str(run)]) == 2
    assert capsys.readouterr().err == (
        f"sample.noise_prior: {own} has changed since this run began; put it back, or begin a new"
        " run\n"
    )
