"""What every loss must do, and what the shipped ones say."""

import re

import pytest
import torch
from attrs import evolve
from torch import Generator, Tensor

from jtcore import JtError
from jtcore.adapter import switched_on
from jtcore.noise import AXES
from jtcore.plugins import load_plugins
from jtcore.structure import Component, structure_component, unstructure
from jtcore.types import Noised, Part
from jtplugins.adapters.glora import GLoRA
from jtplugins.losses.ait import AiT
from jtplugins.losses.diffusion import Diffusion
from jtplugins.losses.shift import Shift

LOSSES = [
    Diffusion(),
    Diffusion("mean"),
    Diffusion("area"),
    AiT(),
    AiT(std=0.3),
    Shift(),
    Shift(shared=()),
    Shift(shared=("row", "column"), applied_to="target"),
    Shift(shared=AXES, std=2.0),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=str)
SHAPE = (3, 4, 2, 3, 2)  # (B, C, F, H, W)


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def noised(target: Tensor) -> Noised:  # (B, C, F, H, W)
    return Noised(target, torch.zeros(len(target)), target)


def part(mask: Tensor | None = None) -> Part:  # (B, 1, F, H, W)
    text = torch.zeros(SHAPE[0], 1, 1)
    return Part(torch.zeros(SHAPE), text, ("a bear",) * SHAPE[0], "subject", mask)


def masked_part() -> Part:
    return part((draw(SHAPE[0], 1, *SHAPE[2:], seed=9) > 0).float())


def test_every_shipped_loss_is_on_the_list():
    shipped = load_plugins().families["losses"]
    assert set(shipped.values()) <= {type(loss) for loss in LOSSES}


@every_loss
def test_a_loss_is_what_its_table_says(loss):
    plugins = load_plugins()
    kinds = {cls: kind for kind, cls in plugins.families["losses"].items()}
    table = unstructure(Component(kinds[type(loss)], loss))
    assert structure_component("losses", table, plugins).spec == loss


@every_loss
def test_there_is_one_value_a_sample_that_others_do_not_touch(loss):
    prediction, target = draw(*SHAPE, seed=1), noised(draw(*SHAPE, seed=2))
    values = loss(prediction, target, masked_part(), seeded())
    assert values.shape == SHAPE[:1]
    prediction[1] += 1
    changed = loss(prediction, target, masked_part(), seeded())
    assert (changed == values).tolist() == [True, False, True]


@every_loss
def test_randomness_comes_from_the_generator_alone(loss):
    question = draw(*SHAPE, seed=1), noised(draw(*SHAPE, seed=2)), masked_part()
    before = torch.get_rng_state()
    assert torch.equal(loss(*question, seeded()), loss(*question, seeded()))
    assert torch.equal(torch.get_rng_state(), before)


@every_loss
def test_gradients_agree_with_finite_differences(loss):
    prediction = draw(*SHAPE, seed=1, dtype=torch.float64).requires_grad_()
    target = noised(draw(*SHAPE, seed=2, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda p: loss(p, target, masked_part(), seeded()), prediction)


@every_loss
def test_a_prediction_in_bfloat16_is_compared_in_float32(loss):
    prediction, target = draw(*SHAPE, seed=1).bfloat16(), noised(draw(*SHAPE, seed=2))
    rounded = loss(prediction, target, masked_part(), seeded())
    expected = loss(prediction.float(), target, masked_part(), seeded())
    assert torch.equal(rounded, expected)


@pytest.mark.parametrize("shared", [(), ("frame",), ("channel", "frame"), ("row", "column"), AXES])
@pytest.mark.parametrize("applied_to", ["prediction", "target"])
def test_a_shift_is_the_same_along_the_axes_that_share_it_and_no_others(shared, applied_to):
    target = draw(*SHAPE, seed=2)
    prediction = target.clone().requires_grad_()
    loss = Shift(shared, applied_to=applied_to)
    loss(prediction, noised(target), part(), seeded()).sum().backward()
    shift = prediction.grad  # (B, C, F, H, W), of a perfect prediction: 2 / N times the shift
    varies = {axis for dim, axis in enumerate(AXES, 1) if shift.std(dim).max() > 1e-6}
    assert varies == set(AXES) - set(shared)
    assert shift.std(0).min() > 0


def test_the_expected_loss_of_a_shift_is_larger_by_its_variance():
    many = torch.zeros(20_000, 1, 1, 1, 1)
    for std in (0.5, 2.0):
        values = Shift(std=std)(many + 3, noised(many), part(), seeded())
        assert values.mean().item() == pytest.approx(9 + std**2, rel=0.02)


def test_ait_is_the_shift_shared_by_channels_and_frames():
    question = draw(*SHAPE, seed=1), noised(draw(*SHAPE, seed=2)), part()
    expected = Shift(("channel", "frame"), std=0.7)(*question, seeded())
    assert torch.equal(AiT(std=0.7)(*question, seeded()), expected)


def test_the_expected_gradient_of_ait_is_the_plain_one(backbone, question):
    adapter = GLoRA("visual", rank=4, dropout=0.0).attach(backbone, {})
    torch.nn.init.normal_(adapter.transformer_blocks.get_submodule("0.ff.net.2").up.weight)
    target = noised(draw(*question.latents.shape, seed=2))

    def gradient(loss) -> Tensor:
        with switched_on({adapter: 1.0}, batch=2):
            value = loss(question.put(backbone), target, part(), seeded()).mean()
            grads = torch.autograd.grad(value, list(adapter.parameters()))
        return torch.cat([grad.flatten() for grad in grads])

    shifted, opposite = gradient(AiT()), gradient(Shift(applied_to="target"))  # + s and - s
    plain = gradient(Diffusion())
    assert (shifted - plain).norm() > 0.1 * plain.norm()
    torch.testing.assert_close((shifted + opposite) / 2, plain, atol=2e-6, rtol=0)


def test_the_released_loss_in_x0_form_is_ours():
    alpha = torch.tensor([0.9, 0.3, 0.02], dtype=torch.float64).view(3, 1, 1, 1, 1)
    x0, eps, v_hat = (draw(*SHAPE, seed=seed, dtype=torch.float64) for seed in (1, 2, 3))
    x_t = alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps
    v = alpha.sqrt() * eps - (1 - alpha).sqrt() * x0
    x0_hat = alpha.sqrt() * x_t - (1 - alpha).sqrt() * v_hat
    released = ((x0_hat - x0) ** 2 / (1 - alpha)).flatten(1).mean(1)
    ours = Diffusion()(v_hat, evolve(noised(v), latents=x_t), part(), seeded())
    torch.testing.assert_close(ours, released, atol=1e-13, rtol=0)


def test_a_masked_error_counts_only_inside_the_mask():
    residual, masked = draw(*SHAPE, seed=1), masked_part()
    inside = (masked.mask * residual) ** 2
    question = residual, noised(torch.zeros(SHAPE)), masked, seeded()
    expected = inside.flatten(1).mean(1)
    torch.testing.assert_close(Diffusion("mean")(*question), expected)
    expected = inside.flatten(1).sum(1) / (SHAPE[1] * masked.mask.flatten(1).sum(1))
    torch.testing.assert_close(Diffusion("area")(*question), expected)


@pytest.mark.parametrize("masked", ["mean", "area"])
def test_a_mask_of_everything_is_no_mask_and_one_of_nothing_costs_nothing(masked):
    prediction, target = draw(*SHAPE, seed=1), noised(draw(*SHAPE, seed=2))
    everything = torch.ones(SHAPE[0], 1, *SHAPE[2:])
    plain = Diffusion()(prediction, target, part(), seeded())
    loss = Diffusion(masked)
    torch.testing.assert_close(loss(prediction, target, part(everything), seeded()), plain)
    assert not loss(prediction, target, part(0 * everything), seeded()).any()


def test_by_area_a_constant_error_costs_the_same_whatever_the_mask():
    soft = part(draw(SHAPE[0], 1, *SHAPE[2:], seed=4).sigmoid())
    values = Diffusion("area")(torch.full(SHAPE, 3.0), noised(torch.zeros(SHAPE)), soft, seeded())
    torch.testing.assert_close(values, torch.full(SHAPE[:1], 9.0))


def test_a_missing_mask_is_said_with_what_to_do():
    message = (
        "data.subject: has no masks, but a diffusion loss with masked = 'area' is asked of it;"
        " give it masks, or set masked = 'none'"
    )
    with pytest.raises(JtError, match=f"^{re.escape(message)}$"):
        Diffusion("area")(torch.zeros(SHAPE), noised(torch.zeros(SHAPE)), part(), seeded())
