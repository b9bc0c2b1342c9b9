"""RAFT: optical flow by looking up correlations of all pairs (https://arxiv.org/abs/2003.12039).

The large network, with the tensors of the published `raft-things.pth`. Axes: P pairs of frames,
H and W pixels, h and w cells of 8x8 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn.functional import pad, relu, unfold

from ._correlation import picked_at, pixel_grid, pyramid, window
from ._published import Published, load_frozen, misfits, read_tensors
from ._residual import residual_pair

PUBLISHED = Published("raft-things.pth", "sczhou/ProPainter")  # the authors' own is in an archive
CELL = 8  # pixels
LEVELS, RADIUS = 4, 4  # of the correlations that are looked up
LOOKED_UP = LEVELS * (2 * RADIUS + 1) ** 2
ITERATIONS = 20  # as VBench has it
HIDDEN = CONTEXT = 128
LEAST_SIDE = 64  # pixels: below it there are no coarsest correlations


@frozen(eq=False)
class Raft:
    """Flow of a video's consecutive frames, a few pairs at a time"""

    network: RAFT
    device: torch.device
    batch: int  # pairs

    def __call__(self, video: Tensor) -> Iterator[Tensor]:  # (3, F, H, W) in [0, 1] -> (2, H, W)
        """Flow in pixels, right and down, of each frame to the next: float32, on the CPU. Sides
        are filled up to multiples of 8, and to 64, by repeating the edge."""
        height, width = video.shape[2:]
        added = [_filling(width), _filling(height)]
        margins = [part for whole in added for part in (whole // 2, whole - whole // 2)]
        left, _, top, _ = margins
        for first in range(0, video.shape[1] - 1, self.batch):
            frames = video[:, first : first + self.batch + 1].movedim(1, 0).to(self.device)
            with torch.no_grad():
                flows = self.network(pad(frames, margins, mode="replicate"))
            yield from flows[:, :, top : top + height, left : left + width].cpu()


def load_raft(path: Path, device: torch.device, batch: int) -> Raft:
    """From a published file, strictly. Raises JtError."""
    return Raft(load_frozen(_bare(), read_tensors(path), path, device), device, batch)


def raft_problems(model: str) -> list[str]:
    return misfits(PUBLISHED, model, _bare)


class RAFT(nn.Module):
    """Features of both frames, a pyramid of their correlations, and a recurrent unit that moves
    each cell's match step by step"""

    def __init__(self) -> None:
        super().__init__()
        self.fnet = Encoder(256, nn.InstanceNorm2d)
        self.cnet = Encoder(HIDDEN + CONTEXT, nn.BatchNorm2d)
        self.update_block = Update()

    def forward(self, frames: Tensor) -> Tensor:  # (P + 1, 3, H, W) in [0, 1] -> (P, 2, H, W)
        frames = 2 * frames - 1
        features = self.fnet(frames)  # once a frame, though two pairs need it
        levels = correlate(features[:-1], features[1:])
        hidden, context = self.cnet(frames[:-1]).split([HIDDEN, CONTEXT], dim=1)
        hidden, context = hidden.tanh(), context.relu()
        start = pixel_grid(features)
        flow = torch.zeros_like(start).expand(len(hidden), -1, -1, -1)
        for _ in range(ITERATIONS):
            hidden, step = self.update_block(hidden, context, look_up(levels, start + flow), flow)
            flow = flow + step
        return upsample(flow, 0.25 * self.update_block.mask(hidden))


def correlate(first: Tensor, second: Tensor) -> list[Tensor]:
    """(P, D, h, w) both -> levels (P h w, 1, h / 2^l, w / 2^l): <f1(u), f2(v)> / sqrt(D), means
    over ever larger squares of v"""
    volume = torch.einsum("pduv,pdyx->puvyx", first, second) / first.shape[1] ** 0.5
    return pyramid(volume, LEVELS)


def look_up(levels: list[Tensor], places: Tensor) -> Tensor:
    """Correlations around `places` (P, 2, h, w), x before y, in cells -> (P, LOOKED_UP, h, w). Of
    the window the x offset is the slower index, as the published weights were trained."""
    pairs, _, height, width = places.shape
    centres = places.movedim(1, -1).reshape(-1, 1, 1, 2)
    around = window(RADIUS).to(places)
    found = [picked_at(each, centres / 2**level + around) for level, each in enumerate(levels)]
    return torch.cat([each.view(pairs, height, width, -1) for each in found], -1).movedim(-1, 1)


def upsample(flow: Tensor, weights: Tensor) -> Tensor:
    """(P, 2, h, w), (P, 9 * 64, h, w) -> (P, 2, H, W): each pixel's flow is a convex combination
    of the 3x3 cells around its own"""
    pairs, _, height, width = flow.shape
    shares = weights.view(pairs, 9, CELL, CELL, height, width).softmax(1)
    near = unfold(CELL * flow, 3, padding=1).view(pairs, 2, 9, height, width)
    fine = torch.einsum("pkyxhw,pckhw->pchywx", shares, near)
    return fine.reshape(pairs, 2, CELL * height, CELL * width)


class Encoder(nn.Module):
    """(B, 3, H, W) -> (B, outputs, h, w)"""

    def __init__(self, outputs: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.norm1 = norm(64)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.layer1 = residual_pair(64, 64, 1, norm)
        self.layer2 = residual_pair(64, 96, 2, norm)
        self.layer3 = residual_pair(96, 128, 2, norm)
        self.conv2 = nn.Conv2d(128, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = relu(self.norm1(self.conv1(images)))
        return self.conv2(self.layer3(self.layer2(self.layer1(features))))


class Update(nn.Module):
    """One step of the recurrence; its `mask` weighs the cells of `upsample` after the last"""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Motion()
        self.gru = SeparableGRU(CONTEXT + 128)
        self.flow_head = Head()
        self.mask = nn.Sequential(
            nn.Conv2d(HIDDEN, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * CELL**2, 1)
        )

    def forward(
        self, hidden: Tensor, context: Tensor, correlations: Tensor, flow: Tensor
    ) -> tuple[Tensor, Tensor]:  # all (P, ., h, w); hidden, and the flow's change
        seen = torch.cat([context, self.encoder(flow, correlations)], 1)
        hidden = self.gru(hidden, seen)
        return hidden, self.flow_head(hidden)


class Motion(nn.Module):
    """Correlations and flow -> (P, 128, h, w), of which the last two are the flow"""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LOOKED_UP, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(192 + 64, 126, 3, padding=1)

    def forward(self, flow: Tensor, correlations: Tensor) -> Tensor:
        matches = relu(self.convc2(relu(self.convc1(correlations))))
        moves = relu(self.convf2(relu(self.convf1(flow))))
        return torch.cat([relu(self.conv(torch.cat([matches, moves], 1))), flow], 1)


class SeparableGRU(nn.Module):
    """A gated recurrent unit of 1x5 convolutions, then one of 5x1"""

    def __init__(self, inputs: int):
        super().__init__()
        for number, kernel in ((1, (1, 5)), (2, (5, 1))):
            layer = partial(nn.Conv2d, HIDDEN + inputs, HIDDEN, kernel, padding="same")
            for gate in "zrq":
                setattr(self, f"conv{gate}{number}", layer())

    def forward(self, hidden: Tensor, seen: Tensor) -> Tensor:  # (P, 128, h, w), (P, inputs, h, w)
        for number in "12":
            update, reset, new = (getattr(self, f"conv{gate}{number}") for gate in "zrq")
            both = torch.cat([hidden, seen], 1)
            share = update(both).sigmoid()
            kept = reset(both).sigmoid() * hidden
            proposed = new(torch.cat([kept, seen], 1)).tanh()
            hidden = (1 - share) * hidden + share * proposed
        return hidden


class Head(nn.Module):
    """(P, 128, h, w) -> the flow's change (P, 2, h, w), in cells"""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(relu(self.conv1(hidden)))


def _bare() -> RAFT:
    with torch.device("meta"):
        return RAFT()


def _filling(side: int) -> int:
    """How many pixels a side lacks."""
    return max(-(-side // CELL) * CELL, LEAST_SIDE) - side
