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
from jtplugins.losses.ait_marginal import AiTMarginal
from jtplugins.losses.ait_project import AiTProject
from jtplugins.losses.attention import Attention
from jtplugins.losses.debiased import Debiased
from jtplugins.losses.diffusion import Diffusion
from jtplugins.losses.shift import Shift

LOSSES = [
    Diffusion(),
    Diffusion("mean"),
    Diffusion("area"),
    Diffusion("pixels"),
    Diffusion(norm="l1"),
    Diffusion("mean", "l1"),
    Diffusion("area", "l1"),
    Debiased(),
    Debiased(beta=0.5),
    AiTProject(),
    AiTMarginal(),
    AiTMarginal(std=0.3, residual_std=2.0),
    AiT(),
    AiT(std=0.3),
    Shift(),
    Shift(shared=()),
    Shift(shared=("row", "column"), applied_to="target"),
    Shift(shared=AXES, std=2.0),
]
OTHERS = [
    Attention
]  # of maps of attention, not of the prediction: tests/plugins/test_attention_loss
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
    assert set(shipped.values()) <= {*OTHERS, *map(type, LOSSES)}


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
    prediction[1] *= 2
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


@every_loss
def test_without_its_shift_a_loss_grows_as_its_norm_does(loss):
    target, degree = draw(*SHAPE, seed=2), 1 if getattr(loss, "norm", "l2") == "l1" else 2
    error = draw(*SHAPE, seed=1)

    def even(scale: float) -> Tensor:  # (B,); what a shift adds is constant, or odd in the error
        sides = [
            loss(target + sign * scale * error, noised(target), masked_part(), seeded())
            for sign in (1, -1)
        ]
        return sum(sides) / 2 - loss(target, noised(target), masked_part(), seeded())

    torch.testing.assert_close(even(3.0), 3**degree * even(1.0), atol=1e-5, rtol=1e-4)
    assert even(1.0).min() > 0


@every_loss
def test_a_larger_picture_costs_no_more(loss):
    """Each element is repeated in rows and columns: a loss is a mean over them, no sum."""
    if getattr(loss, "std", 0) and not isinstance(loss, AiTMarginal):
        loss = evolve(loss, std=0.0)  # a shift would be drawn anew

    def value(times: int) -> Tensor:
        def larger(tensor: Tensor) -> Tensor:
            return tensor.repeat_interleave(times, 3).repeat_interleave(times, 4)

        masked = masked_part()
        masked = evolve(masked, latents=larger(masked.latents), mask=larger(masked.mask))
        prediction, target = larger(draw(*SHAPE, seed=1)), larger(draw(*SHAPE, seed=2))
        return loss(prediction, noised(target), masked, seeded())

    torch.testing.assert_close(value(3), value(1))


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

    gradient = gradients_of(adapter, backbone, question, target)
    shifted, opposite = gradient(AiT()), gradient(Shift(applied_to="target"))  # + s and - s
    plain = gradient(Diffusion())
    assert (shifted - plain).norm() > 0.1 * plain.norm()
    torch.testing.assert_close((shifted + opposite) / 2, plain, atol=2e-6, rtol=0)


@pytest.mark.parametrize("loss", [AiTProject(), AiTMarginal()], ids=str)
def test_the_projecting_losses_have_another_expected_gradient(loss, backbone, question):
    adapter = GLoRA("visual", rank=4, dropout=0.0).attach(backbone, {})
    torch.nn.init.normal_(adapter.transformer_blocks.get_submodule("0.ff.net.2").up.weight)
    target = noised(draw(*question.latents.shape, seed=2))
    gradient = gradients_of(adapter, backbone, question, target)
    plain, other = gradient(Diffusion()), gradient(loss)  # neither draws anything
    assert (other - plain).norm() > 0.02 * plain.norm()


def gradients_of(adapter, backbone, question, target: Noised):
    """A function from a loss to its gradient, (N,), to all weights of the adapter."""

    def gradient(loss) -> Tensor:
        with switched_on({adapter: 1.0}, batch=2):
            value = loss(question.put(backbone), target, part(), seeded()).mean()
            grads = torch.autograd.grad(value, list(adapter.parameters()))
        return torch.cat([grad.flatten() for grad in grads])

    return gradient


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


def test_an_absolute_error_is_that_and_counts_by_area_as_customcrafter_has_it():
    residual, masked = draw(*SHAPE, seed=1), masked_part()
    question = residual, noised(torch.zeros(SHAPE)), masked, seeded()
    torch.testing.assert_close(Diffusion(norm="l1")(*question), residual.abs().mean((1, 2, 3, 4)))
    soft = evolve(masked, mask=draw(SHAPE[0], 1, *SHAPE[2:], seed=4).sigmoid())
    for each in (masked, soft):
        m = each.mask.expand(SHAPE)
        expected = (m * residual.abs()).sum((1, 2, 3, 4)) / m.sum((1, 2, 3, 4))
        found = Diffusion("area", "l1")(residual, noised(torch.zeros(SHAPE)), each, seeded())
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("channels", [4, 16])
def test_by_pixels_a_masked_error_is_that_by_area_times_the_channels(channels):
    shape = (2, channels, 1, 8, 8)
    mask = torch.zeros(2, 1, 1, 8, 8)
    mask[0, ..., 2:5, 3:6] = 1
    mask[1, ..., 0, 0], mask[1, ..., 0, 1] = 0.01, 1  # a corner of it: the whole cell counts
    residual = draw(*shape, seed=1)
    inside = [
        residual[0, ..., 2:5, 3:6].square().sum() / 9,
        residual[1, ..., 0, :2].square().sum() / 2,
    ]
    masked = Part(torch.zeros(shape), torch.zeros(2, 1, 1), ("a bear",) * 2, "subject", mask)
    found = Diffusion("pixels")(residual, noised(torch.zeros(shape)), masked, seeded())
    torch.testing.assert_close(found, torch.stack(inside))
    whole = evolve(masked, mask=torch.ones_like(mask))
    found = Diffusion("pixels")(residual, noised(torch.zeros(shape)), whole, seeded())
    torch.testing.assert_close(found, channels * residual.square().mean((1, 2, 3, 4)))


def test_debiasing_leaves_little_of_an_error_that_is_alike_in_every_frame():
    still = draw(3, 4, 1, 3, 2, seed=1).expand(-1, -1, 7, -1, -1)
    found = Debiased()(still, noised(torch.zeros_like(still)), part(), seeded())
    expected = (2**0.5 - 1) ** 2 * still.square().mean((1, 2, 3, 4))
    torch.testing.assert_close(found, expected)


def test_debiased_noise_has_three_times_the_variance_but_at_the_anchor():
    samples, frames = 40, 6
    noise = draw(samples, 10, frames, 20, 20, seed=1)
    clean = noised(torch.zeros(noise.shape))
    values = Debiased()(noise, clean, part(), seeded())
    by_anchor = [
        ((2**0.5 * noise - noise[:, :, [a]]).square().mean((1, 3, 4))) for a in range(frames)
    ]  # each (B, F): the variance in every frame, with that anchor
    means = torch.stack([each.mean(1) for each in by_anchor], 1)  # (B, F)
    anchors = (means - values[:, None]).abs().argmin(1)
    torch.testing.assert_close(means[torch.arange(samples), anchors], values)
    assert anchors.unique().numel() == frames
    variances = torch.stack(by_anchor, 1)[torch.arange(samples), anchors]  # (B, F)
    at_anchor = torch.arange(frames) == anchors[:, None]
    assert variances[~at_anchor].mean().item() == pytest.approx(3, abs=0.02)
    assert variances[at_anchor].mean().item() == pytest.approx(0.1716, abs=0.002)


def projector(channels: int, frames: int, pixels: int) -> Tensor:  # (N, N)
    """E E^T / (C F), where E (N, H W) lays a map over all channels and frames."""
    spread = torch.eye(pixels, dtype=torch.float64).repeat(channels * frames, 1)
    return spread @ spread.T / (channels * frames)


@pytest.mark.parametrize(("std", "rho"), [(1.0, 0.5), (0.3, 2.0), (0.0, 1.0)])
def test_the_marginal_is_the_likelihood_of_noise_with_a_shared_shift(std, rho):
    residual = draw(*SHAPE, seed=1, dtype=torch.float64)
    _, channels, frames, height, width = SHAPE
    projected = projector(channels, frames, height * width)
    covariance = rho**2 * torch.eye(len(projected)) + std**2 * channels * frames * projected
    flat = residual.flatten(1)
    expected = rho**2 * (flat @ covariance.inverse() * flat).mean(1)
    question = residual, noised(torch.zeros(SHAPE, dtype=torch.float64)), part(), seeded()
    torch.testing.assert_close(AiTMarginal(std, rho)(*question), expected)


def test_the_projection_is_the_limit_of_large_shifts_and_leaves_out_what_is_shared():
    residual = draw(*SHAPE, seed=1, dtype=torch.float64)
    question = residual, noised(torch.zeros(SHAPE, dtype=torch.float64)), part(), seeded()
    rest = residual.flatten(1) @ (torch.eye(48) - projector(4, 2, 6))
    torch.testing.assert_close(AiTProject()(*question), rest.square().mean(1))
    torch.testing.assert_close(AiTMarginal(std=1e6)(*question), rest.square().mean(1))
    shifted = residual + draw(3, 1, 1, 3, 2, seed=5, dtype=torch.float64)
    torch.testing.assert_close(AiTProject()(shifted, *question[1:]), AiTProject()(*question))


@pytest.mark.parametrize("masked", ["mean", "area", "pixels"])
def test_a_mask_of_everything_is_no_mask_and_one_of_nothing_costs_nothing(masked):
    prediction, target = draw(*SHAPE, seed=1), noised(draw(*SHAPE, seed=2))
    everything = torch.ones(SHAPE[0], 1, *SHAPE[2:])
    plain = Diffusion()(prediction, target, part(), seeded())
    loss = Diffusion(masked)
    scale = SHAPE[1] if masked == "pixels" else 1
    torch.testing.assert_close(loss(prediction, target, part(everything), seeded()), scale * plain)
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
