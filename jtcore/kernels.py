"""Which of torch's kernels the attention of a denoiser's blocks runs on."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from jtcore.types import Backbone

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
HEAD = 64  # the width of heads with which one is tried


def choose_attention(backbone: Backbone, name: str) -> None:
    """Let the blocks compute attention with one of torch's kernels, in backward's second run too.
    Exact up to the order of sums."""
    for block in backbone.blocks().values():
        block.forward = partial(_attending, KERNELS[name], block.forward)


def _attending(backend: SDPBackend, forward: Callable, *given: Any, **named: Any) -> Any:
    with sdpa_kernel(backend):
        return forward(*given, **named)


def kernel_problem(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a device cannot run a kernel of attention, forward and backward: found by a small try."""
    x = torch.zeros(1, 1, 16, HEAD, device=device, dtype=dtype, requires_grad=True)
    try:
        _try(KERNELS[name], x)
    except RuntimeError:
        others = [each for each in KERNELS if each != name and _runs(KERNELS[each], x)]
        return f"{name!r} does not run here in {dtype}; {', '.join(map(repr, others))} do"
    return None


def _runs(backend: SDPBackend, x: torch.Tensor) -> bool:
    try:
        _try(backend, x)
    except RuntimeError:
        return False
    return True


def _try(backend: SDPBackend, x: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # why each kernel is not taken
        with sdpa_kernel(backend):
            scaled_dot_product_attention(x, x, x).sum().backward()
    x.grad = None
