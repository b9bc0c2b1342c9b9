"""Layers in few bits: what they hold, what they answer, what backward keeps of them."""

import weakref

import numpy as np
import pytest
import torch
from attrs import frozen
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from jtcore import lowbit
from jtcore.errors import JtError
from jtcore.lowbit import GROUP, STORAGE, LowBitLinear, lower

BASES = tuple(STORAGE)
CPU = torch.device("cpu")
ERRORS = {"int8": 0.0045, "fp8": 0.026, "nf4": 0.095}  # of weights as nn.Linear draws them


def frozen_linear(dtype: torch.dtype = torch.float32, width: int = 96) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(width, 130).to(dtype).requires_grad_(False)


@frozen(eq=False)
class Blocks:
    """A backbone as far as `lower` asks for one: a first layer, two blocks, a last layer."""

    denoiser: nn.Module

    @classmethod
    def make(cls) -> "Blocks":
        torch.manual_seed(2)
        inner = [nn.ModuleDict({"norm": nn.LayerNorm(8), "own": nn.Linear(8, 8)}) for _ in range(2)]
        parts = {"first": nn.Linear(4, 8), "blocks": nn.ModuleList(inner), "last": nn.Linear(8, 4)}
        return cls(nn.ModuleDict(parts).requires_grad_(False))

    def blocks(self) -> dict[str, nn.Module]:
        return {f"blocks.{n}": block for n, block in enumerate(self.denoiser["blocks"])}


# What is held


@pytest.mark.parametrize("base", BASES)
def test_a_weight_comes_out_nearly_as_it_was(base):
    linear = frozen_linear()
    found = LowBitLinear(linear, base, CPU).weight
    assert (found - linear.weight).norm() / linear.weight.norm() < ERRORS[base]


def test_int8_has_the_largest_of_a_row_at_127():
    weight = frozen_linear().weight
    packed, scales = STORAGE["int8"].pack(weight)

    rows = weight.numpy()
    step = np.abs(rows).max(1, keepdims=True) / np.float32(127)
    assert np.array_equal(packed.numpy(), np.rint(rows / step))
    assert np.abs(packed.numpy()).max(1).min() == 127
    assert np.array_equal(scales.numpy(), step)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_fp8_is_torchaos():
    from torchao.quantization import Float8WeightOnlyConfig, quantize_

    theirs = nn.Sequential(frozen_linear())
    packed, scales = STORAGE["fp8"].pack(theirs[0].weight)
    quantize_(theirs, Float8WeightOnlyConfig())

    assert torch.equal(packed, theirs[0].weight.qdata.view(torch.uint8))
    assert torch.equal(scales, theirs[0].weight.scale)


@pytest.mark.parametrize("width", [64, 96])  # a row of one group, and one that ends within one
def test_nf4_has_the_nearest_of_the_16_quantiles(width):
    weight = frozen_linear(width=width).weight.pow(3)  # of groups that differ in size
    packed, scales = STORAGE["nf4"].pack(weight)
    found = STORAGE["nf4"].unpack(packed, scales, tuple(weight.shape), torch.float32)

    ends = norm.ppf(0.9677083)  # QLoRA's: 8 values above zero, 7 below, and zero
    above = norm.ppf(np.linspace(0.9677083, 0.5, 9)[:-1]) / ends
    below = -norm.ppf(np.linspace(0.9677083, 0.5, 8)[:-1]) / ends
    values = np.sort(np.concatenate([above, below, [0]]))
    groups = weight.numpy().reshape(-1, GROUP)
    largest = np.abs(groups).max(1, keepdims=True)
    nearest = values[np.abs((groups / largest)[..., None] - values).argmin(-1)] * largest
    np.testing.assert_allclose(found.numpy().reshape(-1, GROUP), nearest, atol=1e-6)


@pytest.mark.parametrize(("base", "bits"), [("int8", 8), ("fp8", 8), ("nf4", 4)])
def test_a_weight_takes_so_many_bits(base, bits):
    layer = LowBitLinear(frozen_linear(width=GROUP * 4), base, CPU)
    count = layer.in_features * layer.out_features
    assert layer.packed.nbytes * 8 == count * bits
    assert layer.scales.nbytes * 8 <= count / 2  # a number of 32 bits for 64 at most


@pytest.mark.parametrize("base", BASES)
def test_a_row_of_zeros_stays_one(base):
    linear = frozen_linear()
    linear.weight[3] = 0
    assert LowBitLinear(linear, base, CPU).weight[3].eq(0).all()


# What is answered


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("base", BASES)
def test_it_answers_what_a_layer_with_the_weight_does(base, dtype):
    layer = LowBitLinear(frozen_linear(dtype), base, CPU)
    x, same = _inputs(dtype), _inputs(dtype)

    answer, expected = layer(x), functional.linear(same, layer.weight, layer.bias)
    gradient = torch.randn(answer.shape).to(dtype)
    answer.backward(gradient)
    expected.backward(gradient)

    assert answer.dtype == dtype
    assert torch.equal(answer, expected)
    assert torch.equal(x.grad, same.grad)


@pytest.mark.parametrize("base", BASES)
def test_it_does_so_in_autocast_and_when_it_runs_again_for_backward(base):
    layer, plain = LowBitLinear(frozen_linear(), base, CPU), frozen_linear()
    plain.weight.copy_(layer.unpack(torch.bfloat16))  # which holds what autocast makes of it
    x, same = _inputs(torch.float32), _inputs(torch.float32)

    with torch.autocast("cpu", torch.bfloat16):
        answer, expected = checkpoint(layer, x, use_reentrant=False), plain(same)
    gradient = torch.randn(answer.shape).bfloat16()
    answer.backward(gradient)
    expected.backward(gradient)

    assert answer.dtype == torch.bfloat16
    assert torch.equal(answer, expected)
    assert torch.equal(x.grad, same.grad) and x.grad.dtype == torch.float32


@pytest.mark.parametrize("base", BASES)
def test_nothing_of_it_is_trained(base):
    layer = LowBitLinear(frozen_linear(), base, CPU)
    layer(_inputs(torch.float32)).sum().backward()
    assert not any(weight.requires_grad for weight in layer.parameters())
    assert not layer(torch.randn(2, 96)).requires_grad


@pytest.mark.parametrize("base", BASES)
def test_backward_keeps_no_whole_weight(base):
    layer, kept = LowBitLinear(frozen_linear(), base, CPU), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        layer(_inputs(torch.float32))
    assert {x.data_ptr() for x in kept} == {layer.packed.data_ptr(), layer.scales.data_ptr()}


def test_it_is_a_linear_layer_to_whoever_asks():
    layer = LowBitLinear(frozen_linear(torch.bfloat16), "nf4", CPU)
    assert isinstance(layer, nn.Linear)
    assert (layer.in_features, layer.out_features) == (96, 130)
    assert layer.weight.shape == (130, 96) and layer.weight.dtype == torch.bfloat16
    assert str(layer) == "LowBitLinear(in_features=96, out_features=130, bias=True, base=nf4)"


# Which layers


@pytest.mark.parametrize("base", BASES)
def test_only_linear_layers_in_blocks_are_stored_so(base):
    backbone = Blocks.make()
    before = {name: tensor.clone() for name, tensor in backbone.denoiser.state_dict().items()}

    lower(backbone, base, CPU)

    kinds = {name: type(module) for name, module in backbone.denoiser.named_modules()}
    assert {n for n, kind in kinds.items() if kind is LowBitLinear} == {
        "blocks.0.own",
        "blocks.1.own",
    }
    after = backbone.denoiser.state_dict()
    for name in ("first.weight", "last.weight", "blocks.0.norm.weight", "blocks.1.own.bias"):
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("base", BASES)
def test_the_same_weights_are_stored_the_same(base):
    first, second = Blocks.make(), Blocks.make()
    lower(first, base, CPU)
    lower(second, base, CPU)
    for one, other in zip(first.denoiser.parameters(), second.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_weight_is_gone_before_the_next_is_packed(monkeypatch):
    backbone, there = Blocks.make(), []
    weights = [weakref.ref(block["own"].weight) for block in backbone.blocks().values()]

    def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
        there.append(sum(each() is not None for each in weights))
        return STORAGE["int8"].pack(weight)

    watched = STORAGE | {"watched": STORAGE["int8"]._replace(pack=pack)}
    monkeypatch.setattr(lowbit, "STORAGE", watched)
    lower(backbone, "watched", CPU)
    assert there == [2, 1]


def test_blocks_without_linear_layers_are_told():
    bare = Blocks(nn.ModuleDict({"blocks": nn.ModuleList([nn.Conv2d(2, 2, 1)])}))
    with pytest.raises(JtError, match="the blocks of this backbone have no linear layers"):
        lower(bare, "int8", CPU)


def _inputs(dtype: torch.dtype) -> Tensor:  # (2, 5, 96)
    torch.manual_seed(3)
    return torch.randn(2, 5, 96).to(dtype).requires_grad_()
