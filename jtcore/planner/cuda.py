"""What a GPU does otherwise than the CPU on whose code paths tensors without numbers are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from jtcore.planner.flops import ATTENTION_BACKWARD

GRAIN = 512  # bytes, in whole numbers of which CUDA's allocator hands memory out
# what autocast computes in float32 on GPUs alone, by torch's documentation
PRECISE = {
    *("__pow__", "__rdiv__", "__rpow__", "__rtruediv__", "cdist", "cosine_similarity"),
    *("cross_entropy", "cumprod", "cumsum", "dist", "exp", "expm1", "group_norm", "kl_div"),
    *("l1_loss", "layer_norm", "log", "log10", "log1p", "log2", "log_softmax", "mse_loss"),
    *("nll_loss", "norm", "normalize", "pow", "prod", "reciprocal", "renorm", "rsqrt"),
    *("sinh", "smooth_l1_loss", "softmax", "softmin", "softplus", "sum", "tan"),
}


class GpuAutocast(TorchFunctionMode):
    """Where autocast is on, computes in float32 what it does on a GPU, and does not on a CPU."""

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in PRECISE and torch.is_autocast_enabled("cpu") and not kwargs.get("dtype"):
            args = [_precise(each) for each in args]
            kwargs = {key: _precise(each) for key, each in kwargs.items()}
        return func(*args, **kwargs)


def workspace(operation: Any, args: Sequence[Any]) -> int:
    """Bytes that a kernel takes besides what it answers: flash attention sums the gradient of its
    queries in float32."""
    if operation._overloadpacket is not ATTENTION_BACKWARD:
        return 0
    query = args[1]
    return 4 * query.numel() if query.element_size() == 2 else 0


def _precise(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
