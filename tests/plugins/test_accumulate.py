"""The arithmetic of low-rank updates against plain autograd, written out here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from jtcore.adapter import Adapter, switched_on
from jtcore.reckoning import reckoned_as
from jtcore.targets import match_targets
from jtplugins.adapters import _accumulate
from jtplugins.adapters._accumulate import add, linear, tapped
from jtplugins.adapters.glora import GLoRA
from jtplugins.adapters.lora import LoRA

BATCH, FOLDED, TOKENS, WIDTH, OUT, RANK = 2, 3, 5, 8, 6, 4
devices = pytest.mark.parametrize("device", ["cpu", "cuda"])  # as which a CPU is reckoned with


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


gradcheck = partial(torch.autograd.gradcheck, fast_mode=True)  # along one random direction


def seeded(work: Callable) -> Callable:
    """The same draws of dropout each time, as finite differences need them."""

    def again(*given):
        torch.manual_seed(1)
        return work(*given)

    return again


@contextmanager
def in_parts_of(elements: int) -> Iterator[None]:
    whole, _accumulate.ELEMENTS = _accumulate.ELEMENTS, elements
    try:
        yield
    finally:
        _accumulate.ELEMENTS = whole


cases = pytest.mark.parametrize(  # as which device, dropout, and whether it is drawn in parts
    ("device", "dropout", "parted"),
    [("cpu", 0.0, False), ("cpu", 0.3, False), ("cpu", 0.3, True), ("cuda", 0.3, True)],
)


@cases
@pytest.mark.parametrize("strength", ["number", "tensor"])
@pytest.mark.parametrize("onto", [True, False])
def test_the_gradients_of_an_update_are_its_finite_differences(
    device, dropout, parted, strength, onto
):
    torch.manual_seed(0)
    hidden, up = draw(BATCH * FOLDED, 2, RANK), draw(OUT, RANK)
    tensors = (draw(BATCH),) if strength == "tensor" else ()
    outputs = (draw(BATCH * FOLDED, 2, OUT),) if onto else ()

    @seeded
    def work(hidden: Tensor, up: Tensor, *more: Tensor) -> Tensor:
        *output, by = more if tensors else (*more, 0.7)
        return add(output[0] * 1 if output else None, hidden, by, up, dropout)

    with in_parts_of(2 * OUT if parted else 2**24), reckoned_as(device):
        assert gradcheck(work, (hidden, up, *outputs, *tensors))


@cases
@pytest.mark.parametrize("rows", [(RANK,), (RANK, 1)])
def test_the_gradients_of_stacked_weights_are_their_finite_differences(
    device, dropout, parted, rows
):
    torch.manual_seed(0)
    x, weights = draw(BATCH, 3, WIDTH), [draw(count, WIDTH) for count in rows]
    work = seeded(lambda x, *weights: linear(x, weights, dropout))
    with in_parts_of(2 * WIDTH if parted else 2**24), reckoned_as(device):
        assert gradcheck(work, (x, *weights))


@cases
def test_a_tapped_input_has_the_gradients_of_the_layer_and_of_the_product(device, dropout, parted):
    torch.manual_seed(0)
    x, layer, weights = draw(BATCH, 3, WIDTH), draw(OUT, WIDTH), [draw(RANK, WIDTH)]

    @seeded
    def work(x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        same, product = tapped(x, weights, dropout, x.dtype)
        return same @ layer.detach().T, product

    with in_parts_of(2 * WIDTH if parted else 2**24), reckoned_as(device):
        assert gradcheck(work, (x, *weights))


@pytest.mark.parametrize("unused", [0, 1])
def test_a_tapped_input_has_the_gradient_of_what_was_used_alone(unused):
    x, weight = draw(BATCH, 3, WIDTH), draw(RANK, WIDTH)
    used = tapped(x, [weight], 0.0, x.dtype)[1 - unused]
    plain = (x @ weight.T) if unused == 0 else x
    own, expected = (torch.autograd.grad(each.sin().sum(), x)[0] for each in (used, plain))
    torch.testing.assert_close(own, expected)


@frozen(eq=False)
class OneLayer:
    """A backbone of one linear of some type"""

    denoiser: nn.Module

    @classmethod
    def of(cls, dtype: torch.dtype, width: int = WIDTH, out: int = OUT) -> "OneLayer":
        torch.manual_seed(0)
        denoiser = nn.Module()
        denoiser.layer = nn.Linear(width, out).requires_grad_(False).to(dtype)
        return cls(denoiser)

    def targets(self, query: str) -> dict[str, nn.Module]:
        return match_targets(self.denoiser, {"all": ("*layer",)}, query)

    def __call__(self, adapter: Adapter, x: Tensor) -> Tensor:
        with switched_on({adapter: 1.0}, len(x)):
            return self.denoiser.layer(x)


def trained(spec: object, backbone: OneLayer) -> Adapter:
    adapter = spec.attach(backbone, {}).train()
    for weight in adapter.parameters():
        nn.init.normal_(weight, std=0.3)
    return adapter


def gradients(output: Tensor, x: Tensor, adapter: Adapter) -> list[Tensor]:
    return torch.autograd.grad(output.float().square().sum(), [x, *adapter.parameters()])


def test_16_bits_and_float32_weights_meet_as_autocast_has_them_meet():
    backbone = OneLayer.of(torch.bfloat16)
    adapter = trained(GLoRA("all", RANK, dropout=0.0), backbone)
    x = torch.randn(BATCH, TOKENS, WIDTH).bfloat16().requires_grad_()
    down, up, gate = (adapter.get_parameter(f"layer.{n}.weight") for n in ("down", "up", "gate"))
    with torch.autocast("cpu", torch.bfloat16):
        found = backbone(adapter, x)
        linear = nn.functional.linear
        strength = linear(x, gate).float().sigmoid().mean(1, keepdim=True)
        plain = backbone.denoiser.layer(x) + linear(linear(x, down) * strength.bfloat16(), up)
    assert found.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain, atol=2e-2, rtol=2e-2)
    for own, expected in zip(
        gradients(found, x, adapter), gradients(plain, x, adapter), strict=True
    ):
        assert own.dtype == expected.dtype
        assert (own - expected).norm() < 2e-2 * expected.norm()


def test_autocast_reaches_an_input_in_float32():
    backbone = OneLayer.of(torch.bfloat16)
    adapter = trained(LoRA("all", RANK), backbone)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = backbone(adapter, x)
    assert output.dtype == torch.bfloat16
    assert [each.dtype for each in gradients(output, x, adapter)] == [torch.float32] * 3


@pytest.mark.parametrize("side", ["input", "output"])
def test_what_is_drawn_anew_for_backward_is_what_was_kept_for_it(side):
    backbone = OneLayer.of(torch.float32)
    adapter = trained(LoRA("all", RANK, dropout=0.5, dropout_on=side), backbone)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(2)
        with reckoned_as(device):
            output = backbone(adapter, x)
            torch.rand(1)  # others draw before backward
            found.append([output, *gradients(output, x, adapter)])
    assert all(map(torch.equal, *found))


@devices
def test_a_checkpointed_layer_keeps_its_input_alone(device):
    backbone = OneLayer.of(torch.float32)
    adapter = trained(GLoRA("all", RANK, dropout=0.5), backbone)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    with reckoned_as(device), switched_on({adapter: 1.0}, BATCH):
        output = checkpoint(backbone.denoiser.layer, x, use_reentrant=False)
    assert not output.grad_fn.kept.drawn  # what is not saved as other tensors are stays


@devices
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_checkpointed_layer_has_the_gradients_of_one_that_is_not(device, side):
    backbone = OneLayer.of(torch.float32)
    adapter = trained(LoRA("all", RANK, dropout=0.5, dropout_on=side), backbone)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    found = []
    for layer in (
        backbone.denoiser.layer,
        lambda x: checkpoint(backbone.denoiser.layer, x, use_reentrant=False),
    ):
        torch.manual_seed(2)
        with reckoned_as(device), switched_on({adapter: 1.0}, BATCH):
            found.append(gradients(layer(x), x, adapter))
    assert all(map(torch.equal, *found))


def test_an_update_is_written_where_the_layers_output_lies():
    backbone, places = OneLayer.of(torch.float32), []
    backbone.denoiser.layer.register_forward_hook(lambda *given: places.append(given[2].data_ptr()))
    adapters = [trained(kind("all", RANK), backbone) for kind in (LoRA, GLoRA)]
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    with switched_on(dict.fromkeys(adapters, 1.0), BATCH):
        assert backbone.denoiser.layer(x).data_ptr() == places[0]


@pytest.mark.parametrize("side", ["input", "output"])
def test_the_gradient_of_an_input_is_written_where_that_of_the_layer_lies(side):
    backbone, places = OneLayer.of(torch.float32), []

    def watch(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        inputs[0].register_hook(lambda gradient: places.append(gradient.data_ptr()))

    adapters = [trained(LoRA("all", RANK, dropout_on=side), backbone)]
    adapters.append(trained(GLoRA("all", RANK), backbone))
    backbone.denoiser.layer.register_forward_pre_hook(watch)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    with switched_on(dict.fromkeys(adapters, 1.0), BATCH):
        found = gradients(backbone.denoiser.layer(x), x, adapters[0])
    assert found[0].data_ptr() == places[0]


def test_an_update_and_a_layer_of_other_types_share_the_gradient_of_their_input():
    backbone = OneLayer.of(torch.bfloat16)
    adapter = trained(LoRA("all", RANK, dropout=0.0), backbone)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    down, up = adapter.parameters()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(backbone(adapter, x), x, adapter)
        linear = nn.functional.linear
        plain = backbone.denoiser.layer(x) + linear(linear(x, down), up)
        expected = gradients(plain, x, adapter)
    for own, other in zip(found, expected, strict=True):
        assert (own - other).norm() < 2e-2 * other.norm()


def test_an_output_that_its_own_backward_needs_is_left_as_it_is():
    backbone = OneLayer.of(torch.float32)
    backbone.denoiser.layer.register_forward_hook(lambda layer, inputs, output: output.exp())
    adapter = trained(LoRA("all", RANK, dropout=0.0), backbone)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    down, up = adapter.parameters()
    plain = backbone.denoiser.layer(x) + x @ down.T @ up.T
    found = gradients(backbone(adapter, x), x, adapter)
    for own, expected in zip(found, gradients(plain, x, adapter), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [LoRA, GLoRA])
def test_nothing_is_kept_for_backward_that_is_as_wide_as_the_output(kind):
    backbone, out = OneLayer.of(torch.float32, out=64), 64
    adapter = trained(kind("all", RANK, dropout=0.5), backbone)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        backbone(adapter, x)
    assert any(tensor.shape[-1] == RANK for tensor in kept)
    wide = [tensor for tensor in kept if tensor.numel() == BATCH * TOKENS * out]
    assert [tensor.dtype for tensor in wide] == [torch.bool]  # what dropout drew


def test_an_adapter_that_is_on_but_not_trained_keeps_no_input():
    backbone = OneLayer.of(torch.float32)
    adapter = trained(GLoRA("all", RANK), backbone).requires_grad_(False)
    x = torch.randn(BATCH, TOKENS, WIDTH, requires_grad=True)
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        backbone(adapter, x).sum().backward()
    assert not [tensor for tensor in kept if tensor.shape == x.shape]
    assert x.grad.any()
