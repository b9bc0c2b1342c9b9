"""The frozen denoiser's weights in few bits: approximate, for a half or a quarter of the memory.

Only linear layers inside the backbone's blocks are stored so. What is outside of them, such as the
embeddings of patches and times and the projection at the end, and norms, convolutions and biases
inside of them are as they were.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from jtcore.errors import JtError

if TYPE_CHECKING:
    from jtcore.types import Backbone

Base = Literal["int8", "fp8", "nf4"]

GROUP = 64  # weights that share a scale, in nf4; in int8 and fp8 those of a row do
MISSING = "{!r} needs bitsandbytes: pip install 'jtcore[lowbit]'"


def lower(backbone: "Backbone", base: Base, device: torch.device) -> None:
    """Store the linear layers of all blocks in `base`, on `device`: one after another, so that no
    more than one of them is there twice. What is not one of them is moved there as it is.

    What comes out depends on the weights alone, and so is the same when a run is resumed. Raises
    JtError where there is nothing to store so.
    """
    names = [name for name, _ in linear_layers(backbone)]
    if not names:
        raise JtError("the blocks of this backbone have no linear layers to store in few bits")
    for name in names:
        parent, _, own = name.rpartition(".")
        owner = backbone.denoiser.get_submodule(parent)
        setattr(owner, own, LowBitLinear(owner.get_submodule(own), base, device))
    backbone.denoiser.to(device)


def low_bit_problem(base: Base, device: torch.device) -> str | None:
    """Why a base cannot be had on a device, and what to do: a small layer is tried."""
    try:
        LowBitLinear(nn.Linear(GROUP, 2), base, device).unpack(torch.float32)
    except ImportError:
        return MISSING.format(base)
    except RuntimeError as error:  # an operator that is not there for the device
        return f"{base!r} does not work on {device.type}: {str(error).splitlines()[0]}"
    return None


def load_bitsandbytes() -> None:
    """Import it, which registers its operators."""
    import bitsandbytes  # noqa: F401


def linear_layers(backbone: "Backbone") -> Iterator[tuple[str, nn.Linear]]:
    """The plain linear layers in blocks, by their names in the denoiser."""
    for path, block in backbone.blocks().items():
        for name, module in block.named_modules(prefix=path):
            if type(module) is nn.Linear:
                yield name, module


class LowBitLinear(nn.Linear):
    """A frozen linear layer whose weight is stored in few bits

    It answers what a linear layer with the weight `unpack` gives would, in the precision of its
    input or of autocast. For backward it keeps the packed weight and unpacks it again: whatever
    holds on to what backward needs never holds a whole one.
    """

    packed: nn.Parameter  # integers, of a shape that the storage has
    scales: nn.Parameter  # float32

    def __init__(self, linear: nn.Linear, base: Base, device: torch.device) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.base, self.dtype = base, linear.weight.dtype
        packed, scales = STORAGE[base].pack(linear.weight.detach().to(device))
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        bias = None if linear.bias is None else linear.bias.detach().to(device)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.train(linear.training)

    @property
    def weight(self) -> Tensor:  # (out, in)
        """A copy of the weight, in the precision that it was loaded in."""
        return self.unpack(self.dtype)

    def unpack(self, dtype: torch.dtype) -> Tensor:  # (out, in)
        shape = (self.out_features, self.in_features)
        return STORAGE[self.base].unpack(self.packed, self.scales, shape, dtype)

    def forward(self, x: Tensor) -> Tensor:  # (N, ..., in) -> (N, ..., out)
        kind = x.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        shape = (self.out_features, self.in_features)
        return LowBitProduct.apply(x, bias, self.packed, self.scales, self.base, shape)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, base={self.base}"


class LowBitProduct(torch.autograd.Function):
    """x W^T + b, with gradient to x alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # (N, ..., in)
        bias: Tensor | None,  # (out,)
        packed: Tensor,
        scales: Tensor,
        base: Base,
        shape: tuple[int, int],
    ) -> Tensor:  # (N, ..., out)
        ctx.save_for_backward(packed, scales)
        ctx.base, ctx.shape = base, shape
        return functional.linear(x, STORAGE[base].unpack(packed, scales, shape, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # (N, ..., out)
        weight = STORAGE[ctx.base].unpack(*ctx.saved_tensors, ctx.shape, gradient.dtype)
        return gradient @ weight, None, None, None, None, None


class Storage(NamedTuple):
    """How a weight (out, in) becomes integers with float32 scales, and comes out of them again."""

    pack: Callable[[Tensor], tuple[Tensor, Tensor]]
    unpack: Callable[[Tensor, Tensor, tuple[int, int], torch.dtype], Tensor]


def _pack_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers from -127 to 127, the largest of each row at its end."""
    scales = _largest_of_rows(weight) / 127
    return (weight.float() / scales).round().to(torch.int8), scales


def _unpack_int8(
    packed: Tensor, scales: Tensor, shape: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    return packed.to(dtype).mul_(scales)  # such integers are exact in every dtype


def _pack_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Floats of 4 bits of exponent and 3 of fraction, as their bytes: nothing that moves floating
    tensors into another precision then touches them."""
    scales = _largest_of_rows(weight) / torch.finfo(torch.float8_e4m3fn).max
    return (weight.float() / scales).to(torch.float8_e4m3fn).view(torch.uint8), scales


def _unpack_fp8(
    packed: Tensor, scales: Tensor, shape: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    return packed.view(torch.float8_e4m3fn).to(dtype).mul_(scales)


def _pack_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The 16 quantiles of QLoRA (https://arxiv.org/abs/2305.14314), two weights in a byte."""
    load_bitsandbytes()
    pack = torch.ops.bitsandbytes.quantize_4bit
    return pack(weight.contiguous(), GROUP, "nf4", torch.uint8)


def _unpack_nf4(
    packed: Tensor, scales: Tensor, shape: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    row = (1, prod(shape))  # its CPU kernel takes the wrong scales where rows end within a group
    unpack = torch.ops.bitsandbytes.dequantize_4bit
    return unpack(packed, scales, GROUP, "nf4", row, dtype).view(shape)


def _largest_of_rows(weight: Tensor) -> Tensor:  # (out, in) -> (out, 1)
    """And of rows without any, a number to divide by."""
    return weight.float().abs().amax(1, keepdim=True).clamp_min(1e-30)


STORAGE: dict[str, Storage] = {
    "int8": Storage(_pack_int8, _unpack_int8),
    "fp8": Storage(_pack_fp8, _unpack_fp8),
    "nf4": Storage(_pack_nf4, _unpack_nf4),
}
