"""Densities of times and shared noise, against their closed forms."""

from math import pi

import numpy as np
import pytest
import torch

from jtcore import JtError
from jtcore.engine import Engine
from jtcore.model import load_model
from jtcore.noise import AXES, Draws, SharedNoise, Times
from jtcore.recipe import Sampling, build_recipe
from jtcore.sample import denoise, requests
from jtcore.settings import EngineSettings
from jtcore.tables import change

MANY = 400_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_snr() -> np.ndarray:  # (1000,), of the schedule of Stable Diffusion and ZeroScope
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha_bars = np.cumprod(1 - betas)
    return np.log(alpha_bars / (1 - alpha_bars))


@pytest.mark.parametrize("skew", [-1.0, -0.5, 0.3, 1.0])
def test_a_skewed_time_is_the_inverse_of_the_distribution_it_promises(skew):
    shares = torch.linspace(0, 1, 1001, dtype=torch.float64)
    u = Times(skew=skew).quantile(shares)
    torch.testing.assert_close(u - skew / pi * torch.sin(pi * u), shares, atol=1e-12, rtol=0)


def test_steps_of_a_discrete_schedule_are_skewed_as_newmove_skews_them():
    times = Draws(Times(skew=0.5)).steps(MANY, 1000, seeded())
    assert (times >= 500).float().mean().item() == pytest.approx(0.659, abs=0.003)
    assert log_snr()[times].mean() == pytest.approx(-1.78, abs=0.02)
    assert log_snr()[Draws().steps(MANY, 1000, seeded())].mean() == pytest.approx(-0.97, abs=0.02)
    assert (times.min(), times.max()) == (0, 999)


def test_each_step_is_drawn_as_often_as_its_density_says():
    found = Draws(Times(skew=0.5)).steps(MANY, 20, seeded()).bincount(minlength=20) / MANY
    middle = (torch.arange(20) + 0.5) / 20
    torch.testing.assert_close(found, (1 - 0.5 * torch.cos(pi * middle)) / 20, atol=0.001, rtol=0)


def test_steps_can_be_skewed_towards_clean_latents_and_cut_to_a_part():
    low = Draws(Times(skew=-0.5)).steps(MANY, 1000, seeded())
    assert (low < 500).float().mean().item() == pytest.approx(0.659, abs=0.003)
    part = Draws(Times(within=(0.4, 0.7))).steps(MANY, 1000, seeded())
    assert (part.min(), part.max()) == (400, 699)
    assert part.double().mean().item() == pytest.approx(549.5, abs=1)


def test_a_logit_normal_density_is_one():
    u = Draws(Times(logit_normal=(0.7, 1.3))).moved(torch.rand(MANY, generator=seeded()))
    logits = torch.logit(u.double())
    assert logits.mean().item() == pytest.approx(0.7, abs=0.01)
    assert logits.std().item() == pytest.approx(1.3, abs=0.01)
    tails = (logits > 0.7 + 1.3 * 1.959964).double().mean().item()
    assert tails == pytest.approx(0.025, abs=0.001)


@pytest.mark.parametrize(("shift", "share"), [(1, 0.659), (3, 0.863), (5, 0.913)])
def test_a_flow_is_skewed_before_its_times_are_shifted(shift, share):
    u = Draws(Times(skew=0.5)).moved(1 - torch.rand(MANY, generator=seeded()))
    sigma = shift * u / (1 + (shift - 1) * u)
    assert (sigma > 0.5).float().mean().item() == pytest.approx(share, abs=0.003)


def test_plain_draws_are_the_random_numbers_that_they_were():
    rng, ours = seeded(), seeded()
    assert torch.equal(Draws().steps(5, 1000, ours), torch.randint(1000, (5,), generator=rng))
    assert torch.equal(
        Draws().noise((5, 4, 3, 2, 2), ours), torch.randn(5, 4, 3, 2, 2, generator=rng)
    )
    uniform = torch.rand(5, generator=rng)
    assert Draws().moved(uniform) is uniform


@pytest.mark.parametrize("shared", [("row", "column"), ("channel", "frame"), AXES, ("frame",)])
def test_shared_noise_is_one_number_along_its_axes_and_has_its_deviation(shared):
    shape = (300, 4, 3, 5, 6)
    offset = Draws(offset=SharedNoise(0.1, shared)).noise(shape, seeded())
    offset -= Draws().noise(shape, seeded())
    alike = [dim for dim, axis in enumerate(AXES, 1) if axis in shared]
    others = [dim for dim in range(1, 5) if dim not in alike]
    assert all((offset - offset.select(dim, 0).unsqueeze(dim)).abs().max() < 1e-6 for dim in alike)
    assert all(offset.std(dim).mean() > 0.05 for dim in others)
    assert offset[:, ::4, ::3, ::5, ::6].std().item() == pytest.approx(0.1, rel=0.1)


@pytest.fixture
def first_latents(table, plugins):
    """What the denoiser is first asked about, (B, 3, F, H, W), with these options of sampling."""

    def ask(**options) -> torch.Tensor:
        recipe = build_recipe(table, plugins)
        engine = Engine(EngineSettings())
        texts = {"a wug": torch.ones(1, 2), "": torch.zeros(1, 2)}
        model = load_model(recipe.backbone, {}, texts, engine, seed=0)
        seen = []
        model.backbone.denoiser.inner.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        settings = Sampling(("a wug",), 5, (24, 32), seeds=(0, 1), steps=2, guidance=1, **options)
        denoise(list(requests(settings, {})), settings, model, (3, 5, 6, 8))
        return seen[0][..., :3].transpose(1, 2).reshape(2, 3, 5, 6, 8)

    return ask


def test_samples_begin_with_the_same_noise_and_what_is_shared_on_top(first_latents):
    plain = first_latents()
    offset = first_latents(noise=SharedNoise(0.1, ("row", "column"))) - plain
    assert torch.equal(plain[1:], torch.randn(1, 3, 5, 6, 8, generator=seeded(1)))
    torch.testing.assert_close(offset, offset[..., :1, :1].expand_as(offset), atol=1e-6, rtol=0)
    rng = seeded(0)
    torch.randn(1, 3, 5, 6, 8, generator=rng)
    expected = 0.1 * torch.randn(1, 3, 5, 1, 1, generator=rng)
    torch.testing.assert_close(offset[:1, ..., :1, :1], expected, atol=1e-6, rtol=0)


def test_a_sample_says_with_what_noise_it_began(table, jt_run, plugins):
    table["sample"]["noise"] = {"std": 0.2, "shared": ["row", "column"]}
    out = jt_run(table)
    entry = (out / "metrics.json").read_text()
    assert '"shared": [' in entry and '"std": 0.2' in entry
    assert "noise with 0.2 that is alike along row and column" in (out / "report.html").read_text()


BRANCH = "stage.joint.branch.joint"


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (f"{BRANCH}.times.skew=1.1", f"{BRANCH}.times.skew: must be <= 1: 1.1"),
        (
            f"{BRANCH}.times={{skew=0.5,logit_normal=[0,1]}}",
            f"{BRANCH}.times: expected skew or logit_normal, got both",
        ),
        (
            f"{BRANCH}.times.logit_normal=[0,0]",
            f"{BRANCH}.times.logit_normal: expected a mean and a standard deviation above 0, got"
            " [0.0, 0.0]",
        ),
        (
            f"{BRANCH}.times.within=[0.5,0.5]",
            f"{BRANCH}.times.within: expected two rising numbers from 0 to 1, got [0.5, 0.5]",
        ),
        (
            f"{BRANCH}.noise={{std=0.1,shared=['row','colum']}}",
            f"{BRANCH}.noise.shared[1]: expected 'channel' or 'frame' or 'row' or 'column', got"
            " 'colum' (str); did you mean 'column'?",
        ),
        (f"{BRANCH}.noise.std=0.1", f"{BRANCH}.noise.shared: missing"),
        ("sample.noise={std=0,shared=['row']}", "sample.noise.std: must be > 0: 0.0"),
    ],
)
def test_a_problem_is_told_with_its_place(table, plugins, setting, problem):
    with pytest.raises(JtError) as caught:
        build_recipe(change(table, [setting]), plugins)
    assert caught.value.problems == (problem,)
