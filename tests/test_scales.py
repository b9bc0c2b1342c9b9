"""Schedules of adapter scales: what reaches an adapter in each step, on any backbone."""

from collections.abc import Mapping
from math import log

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler
from torch import Tensor

from jtcore import JtError
from jtcore.adapter import Adapter
from jtcore.diffusion import Levels
from jtcore.engine import Engine
from jtcore.model import Model
from jtcore.recipe import Sampling, build_recipe
from jtcore.sample import denoise, requests
from jtcore.scales import ScaleSchedule, moments
from jtcore.settings import EngineSettings
from jtplugins.adapters.glora import GLoRA
from jtplugins.adapters.lora import LoRA
from jtplugins.backbones._cogvideox import CogVideoXBackbone
from jtplugins.backbones.pocket import Pocket

CPU = torch.device("cpu")
PROMPTS = ("a wug", "a ball moves")
SIDE = 24  # px
HALVES = ("negative", "prompted")


class Listener(Adapter):
    """Notes the scale of each pass."""

    def __init__(self, backbone) -> None:
        super().__init__()
        self.heard: list[float | Tensor] = []
        next(iter(backbone.blocks().values())).register_forward_hook(self.listen)

    def listen(self, module, inputs, output) -> None:
        if self.current is not None:
            self.heard.append(self.current.scale)


def model_of(spec, *adapters) -> Model:
    """With adapters `a`, `b`, ... as if they were trained, and a `listener`."""
    backbone = spec.load(CPU, torch.float32)
    captions = (*PROMPTS, "")
    texts = dict(zip(captions, spec.load_text_encoder(CPU).embed(captions), strict=True))
    attached = {
        name: a.attach(backbone, {}).eval() for name, a in zip("ab", adapters, strict=False)
    }
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in (weight for each in attached.values() for weight in each.parameters()):
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=0.1)
    attached["listener"] = Listener(backbone)
    return Model(backbone, attached, texts, Engine(EngineSettings(device="cpu")))


@pytest.fixture(scope="module")
def specs(plugins) -> dict:
    return {"pocket": Pocket("random"), "tiny": plugins.find("backbones", "tiny")()}


@pytest.fixture(scope="module")
def models(specs) -> dict[str, Model]:
    return {name: model_of(spec, LoRA("visual", rank=2)) for name, spec in specs.items()}


def sampled(model: Model, spec, scales: Mapping[str, float], **options) -> Tensor:
    plain = {"prompts": PROMPTS, "frames": 2, "size": (SIDE, SIDE), "steps": 5, "guidance": 2.0}
    asked = Sampling(**plain | options)
    shape = spec.latent_shape(asked.frames, *asked.size)
    return denoise(list(requests(asked, scales)), asked, model, shape)


def heard(model: Model, spec, schedule: ScaleSchedule, **options) -> list[float | list[float]]:
    """The listener's scale in each step; where it is one for each sample, all of them."""
    model.adapters["listener"].heard.clear()
    sampled(model, spec, {"listener": 2.0}, schedule={"listener": schedule}, **options)
    scales = model.adapters["listener"].heard
    return [
        s if isinstance(s, float) else [round(n, 6) for n in s.flatten().tolist()] for s in scales
    ]


both = pytest.mark.parametrize("name", ["pocket", "tiny"])


# pocket is at times 999, 799, 599, 399 and 199, tiny at sigmas 1, 0.8, 0.6, 0.4 and 0.2


@both
@pytest.mark.parametrize(
    ("unit", "at", "expected"),
    [
        ("step", (1.0,), [1, 6, 6, 6, 6]),
        ("step", (2.0, 4.0), [1, 1, 6, 6, 4]),
        ("step", (5.0,), [1, 1, 1, 1, 1]),
        ("fraction", (0.4,), [1, 1, 6, 6, 6]),
        ("fraction", (0.1, 0.7), [1, 6, 6, 6, 4]),
    ],
)
def test_a_factor_is_on_from_its_boundary_on(models, specs, name, unit, at, expected):
    schedule = ScaleSchedule(unit, at, (0.5, 3.0, 2.0)[: len(at) + 1])

    assert heard(models[name], specs[name], schedule) == expected


@pytest.mark.parametrize(
    ("unit", "at", "expected"),
    [
        ("sigma", (0.8,), [1, 6, 6, 6, 6]),
        ("sigma", (0.79,), [1, 1, 6, 6, 6]),
        ("sigma", (0.7, 0.2), [1, 1, 6, 6, 4]),
        ("log_snr", (2 * log(0.4 / 0.6),), [1, 1, 6, 6, 6]),
        ("log_snr", (-100.0, 2.0), [1, 6, 6, 6, 4]),
    ],
)
def test_noise_tells_where_a_flow_stands(models, specs, unit, at, expected):
    schedule = ScaleSchedule(unit, at, (0.5, 3.0, 2.0)[: len(at) + 1])

    assert heard(models["tiny"], specs["tiny"], schedule) == expected


@pytest.mark.parametrize("unit", ["sigma", "log_snr"])
@pytest.mark.parametrize("between", [0, 1, 2, 3])
def test_noise_tells_where_a_schedule_of_alphas_stands(models, specs, unit, between):
    alpha_bars = models["pocket"].backbone.scheduler.alphas_cumprod.double()[
        [999, 799, 599, 399, 199]
    ]
    middle = (alpha_bars[between] + alpha_bars[between + 1]) / 2
    at = {"sigma": (1 - middle) ** 0.5, "log_snr": (middle / (1 - middle)).log()}[unit]

    found = heard(models["pocket"], specs["pocket"], ScaleSchedule(unit, (float(at),), (0.5, 3.0)))
    assert found == [1] * (between + 1) + [6] * (4 - between)


@both
@pytest.mark.parametrize("on", HALVES)
def test_one_half_of_guidance_keeps_the_plain_scale(models, specs, name, on):
    schedule = ScaleSchedule("step", (3.0,), (0.5, 1.0), on)

    negative, prompted = ([1, 1], [2, 2]) if on == "negative" else ([2, 2], [1, 1])
    found = heard(models[name], specs[name], schedule)
    assert found == [[*negative, *prompted]] * 3 + [2.0] * 2


@pytest.mark.parametrize(("on", "expected"), [("prompted", 1), ("negative", 2), ("both", 1)])
def test_without_guidance_there_is_the_prompted_half_alone(models, specs, on, expected):
    schedule = ScaleSchedule("step", (4.0,), (0.5, 1.0), on)

    found = heard(models["tiny"], specs["tiny"], schedule, guidance=1.0)
    assert found == [expected] * 4 + [2]


@pytest.mark.parametrize("on", ["both", *HALVES])
@both
def test_a_schedule_of_ones_is_none_bit_for_bit(specs, name, on):
    model = model_of(specs[name], LoRA("visual", rank=2), GLoRA("visual", rank=2))
    scales = {"a": 0.7, "b": 0.3}

    plain = sampled(model, specs[name], scales)
    ones = dict.fromkeys("ab", ScaleSchedule("log_snr", (-2.0, 1.0), (1.0, 1.0, 1.0), on))
    assert torch.equal(sampled(model, specs[name], scales, schedule=ones), plain)
    assert not torch.equal(sampled(model, specs[name], {}), plain)


def test_a_factor_of_zero_on_the_negative_half_is_the_backbone_alone_there(models, specs):
    def answer(**options) -> Tensor:
        return sampled(models["tiny"], specs["tiny"], {"a": 1.0}, steps=1, **options)

    off = ScaleSchedule("step", (1.0,), (0.0, 1.0), "negative")
    scheduled = answer(guidance=3.0, schedule={"a": off})
    noise = torch.randn(1, 3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    base = sampled(models["tiny"], specs["tiny"], {}, steps=1, prompts=("",), guidance=1.0) - noise
    prompted = answer(guidance=1.0) - noise
    torch.testing.assert_close(scheduled, noise + base + 3 * (prompted - base))


# methods.md 1.4: one boundary on the schedules of four backbones


def share_before(times: Tensor, levels) -> float:
    """The share of the steps before the boundary, if a schedule of scales has it."""
    schedule = ScaleSchedule("log_snr", (-4.04,), (0.0, 1.0))
    scales = [schedule.halves(1.0, moment)[1] for moment in moments(list(times), levels)]
    assert scales == sorted(scales)
    return scales.count(0.0) / len(scales)


@pytest.mark.parametrize(("shift", "expected"), [(1.0, 0.20), (3.0, 0.29)], ids=["5b", "2b"])
def test_the_fifth_step_of_a_unet_is_a_fifth_of_cogvideox_5b(shift, expected):
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=shift,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(1000)

    backbone = CogVideoXBackbone(None, scheduler)
    assert share_before(scheduler.timesteps, backbone.levels) == pytest.approx(expected, abs=0.005)


def test_the_fifth_step_of_a_unet_is_its_fifth():
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.set_timesteps(50)

    backbone = CogVideoXBackbone(None, scheduler)  # whose levels are those of any alphas
    assert share_before(scheduler.timesteps, backbone.levels) == 5 / 50


@pytest.mark.parametrize(("shift", "expected"), [(1, 0.12), (3, 0.29), (5, 0.40), (8, 0.52)])
def test_the_fifth_step_of_a_unet_on_flows(shift, expected):
    straight = torch.linspace(1, 0, 1001)[:-1]
    sigmas = shift * straight / (1 + (shift - 1) * straight)

    def levels(times: Tensor) -> Levels:
        return Levels(1 - times.double(), times.double())

    assert share_before(sigmas, levels) == pytest.approx(expected, abs=0.01)


# What is said in a recipe


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ({"at": [2, 2]}, "joint.at: expected rising boundaries, got [2.0, 2.0]"),
        (
            {"unit": "sigma", "at": [0.2, 0.8]},
            "joint.at: expected boundaries that fall, as sigma does, got [0.2, 0.8]",
        ),
        ({"unit": "log_snr", "at": [2, 1]}, "joint.at: expected rising boundaries, got [2.0, 1.0]"),
        ({"at": []}, "joint.at: Length of 'at' must be >= 1: 0"),
        (
            {"scales": [1.0, 2.0]},
            "joint.scales: expected 3, one more than boundaries, got 2",
        ),
        (
            {"unit": "logsnr"},
            "joint.unit: expected 'step' or 'fraction' or 'sigma' or 'log_snr', got 'logsnr'"
            " (str); did you mean 'log_snr'?",
        ),
        (
            {"on": "prompt"},
            "joint.on: expected 'both' or 'prompted' or 'negative', got 'prompt' (str); did you"
            " mean 'prompted'?",
        ),
    ],
)
def test_a_schedule_that_means_nothing_is_told(table, plugins, schedule, problem):
    plain = {"unit": "step", "at": [1, 2], "scales": [1, 2, 3]}
    table["sample"]["schedule"] = {"joint": plain | schedule}

    with pytest.raises(JtError) as caught:
        build_recipe(table, plugins)
    assert f"sample.schedule.{problem}" in caught.value.problems


def test_a_schedule_of_an_adapter_that_is_not_there_is_told(table, plugins):
    plain = {"unit": "step", "at": [1], "scales": [1, 2]}
    table["sample"]["schedule"] = {"jiont": plain}

    with pytest.raises(JtError) as caught:
        build_recipe(table, plugins)
    assert caught.value.problems == (
        "sample.schedule: unknown adapter 'jiont'; did you mean 'joint'?",
    )
