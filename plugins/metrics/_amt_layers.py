"""The layers of AMT-S: encoders, decoders and updates (https://arxiv.org/abs/2304.09790)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

SKIPPED = 20  # channels of a decoder that have convolutions of their own
HIDDEN, FLOW, FOUND, JOINED = 76, 20, 64, 68  # channels within an update
LEAK = 0.1


class FeatureEncoder(nn.Module):
    """Features to correlate, at 1/8 of the size"""

    def __init__(self, out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, stride=2, padding=3)
        self.layer1 = nn.Sequential(Bottleneck(32, 32), Bottleneck(32, 32))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, stride=2), Bottleneck(64, 64))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, stride=2), Bottleneck(96, 96))
        self.conv2 = nn.Conv2d(96, out, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, out, H / 8, W / 8)
        x = functional.instance_norm(self.conv1(x)).relu()
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class Bottleneck(nn.Module):
    """Three convolutions, each with a norm over the picture, added to the stream"""

    def __init__(self, channels: int, out: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out // 4, 1)
        self.conv2 = nn.Conv2d(out // 4, out // 4, 3, stride=stride, padding=1)
        self.conv3 = nn.Conv2d(out // 4, out, 1)
        around = [nn.Conv2d(channels, out, 1, stride=stride)] if stride > 1 else []
        self.downsample = nn.Sequential(*around)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, out, h / stride, w / stride)
        around = functional.instance_norm(self.downsample(x)) if len(self.downsample) else x
        for layer in (self.conv1, self.conv2, self.conv3):
            x = functional.instance_norm(layer(x)).relu()
        return (x + around).relu()


class ContextEncoder(nn.Module):
    """A pyramid of what is in a frame, halved from level to level"""

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        for level, (before, after) in enumerate(zip((3, *channels), channels, strict=False), 1):
            halving = nn.Sequential(convolution(before, after, stride=2), convolution(after, after))
            self.add_module(f"pyramid{level}", halving)

    def forward(self, x: Tensor) -> list[Tensor]:  # (B, 3, H, W) -> (B, C, h, w), finest first
        levels = []
        for halving in self.children():
            x = halving(x)
            levels.append(x)
        return levels


class Decoder(nn.Module):
    """Convolutions, and one that doubles the size"""

    def __init__(self, channels: int, width: int, out: int):
        super().__init__()
        self.convblock = nn.Sequential(
            convolution(channels, width),
            PartlyTwice(width),
            nn.ConvTranspose2d(width, out, 4, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, channels, h, w) -> (B, out, 2 h, 2 w)
        return self.convblock(x)


class PartlyTwice(nn.Module):
    """Convolutions added to the stream, of which the last channels see two more
    (https://arxiv.org/abs/2205.14620)"""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = convolution(width, width)
        self.conv2 = convolution(SKIPPED, SKIPPED)
        self.conv3 = convolution(width, width)
        self.conv4 = convolution(SKIPPED, SKIPPED)
        self.conv5 = nn.Conv2d(width, width, 3, padding=1)
        self.prelu = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:  # (B, width, h, w), kept
        out = x
        for everywhere, more in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            out = everywhere(out)
            out = torch.cat([out[:, :-SKIPPED], more(out[:, -SKIPPED:])], 1)
        return self.prelu(x + self.conv5(out))


class Update(nn.Module):
    """What correlations say of flows and of a decoder's state, reckoned at 1/8 of the size"""

    def __init__(self, channels: int, planes: int, coarser: int):
        super().__init__()
        self.coarser = coarser  # 1/8 is by so much coarser than flows and state are
        self.convc1 = nn.Conv2d(planes, FOUND, 1)
        self.convf1 = nn.Conv2d(4, 2 * FLOW, 7, padding=3)
        self.convf2 = nn.Conv2d(2 * FLOW, FLOW, 3, padding=1)
        self.conv = nn.Conv2d(FOUND + FLOW, JOINED, 3, padding=1)
        self.gru = leaky(JOINED + 4 + channels, HIDDEN)
        self.feat_head = leaky(HIDDEN, channels)
        self.flow_head = leaky(HIDDEN, 4)

    def forward(self, state: Tensor, flows: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w), flows at 1/8 of the size and in its pixels (B, 4, ...), correlations
        (B, planes, ...) -> what to add to the state, and to the flows at its size and in its
        pixels"""
        found = functional.leaky_relu(self.convc1(found), LEAK)
        moved = functional.leaky_relu(self.convf1(flows), LEAK)
        moved = functional.leaky_relu(self.convf2(moved), LEAK)
        joined = functional.leaky_relu(self.conv(torch.cat([found, moved], 1)), LEAK)
        out = self.gru(torch.cat([joined, flows, enlarged(state, 1 / self.coarser)], 1))
        change = enlarged(self.feat_head(out), self.coarser)
        return change, self.coarser * enlarged(self.flow_head(out), self.coarser)


def convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride=stride, padding=1), nn.PReLU(out))


def leaky(channels: int, out: int) -> nn.Sequential:
    """Two convolutions"""
    first = nn.Conv2d(channels, HIDDEN, 3, padding=1)
    return nn.Sequential(first, nn.LeakyReLU(LEAK), nn.Conv2d(HIDDEN, out, 3, padding=1))


def enlarged(x: Tensor, factor: float) -> Tensor:  # (B, C, h, w) -> (B, C, factor h, factor w)
    if factor == 1:
        return x
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
