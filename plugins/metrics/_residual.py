"""The residual block that RAFT's encoders and CoTracker's share, with the names of their files."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import relu


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; with stride 2 the shortcut is a 1x1 convolution.

    Files name the shortcut's norm twice, `norm3` and `downsample.1`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm1, self.norm2 = norm(outputs), norm(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.norm3 = norm(outputs)
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), self.norm3)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, outputs, H / stride, ...)
        inner = relu(self.norm1(self.conv1(images)))
        inner = relu(self.norm2(self.conv2(inner)))
        return relu(self.downsample(images) + inner)


def residual_pair(
    inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Two of them, the first with the stride."""
    return nn.Sequential(
        Residual(inputs, outputs, stride, norm), Residual(outputs, outputs, 1, norm)
    )
