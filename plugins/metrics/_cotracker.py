"""CoTracker3 offline: points tracked together through a whole video
(https://arxiv.org/abs/2410.11831).

Axes: T frames, N points, C channels, h and w cells; a patch has 7x7 places, x before y.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, normalize, pad

from ._cotracker_network import CELL, MLP, Encoder, UpdateFormer
from ._published import Published, load_frozen, misfits, read_tensors
from ._tracks import Tracks

PUBLISHED = Published("scaled_offline.pth", "facebook/cotracker3")
HEIGHT, WIDTH = 384, 512  # pixels that a video is scaled to
ITERATIONS = 6
VISIBLE = 0.9  # the least probability
LEVELS, RADIUS = 4, 3  # of the correlations
PATCH = 2 * RADIUS + 1
WINDOW = 60  # frames of the stored embedding of time, which is stretched to a video's
OCTAVES = 10  # of the encoding of steps
CORRELATED = 256  # numbers that a level's correlations become
INPUTS = 2 + LEVELS * CORRELATED + 4 * (1 + 2 * OCTAVES)
PLACES_AT_ONCE = 1 << 12  # points times frames: their patches take 100 MB


@frozen(eq=False)
class CoTracker:
    """Tracks of a grid of points of the first frame"""

    network: CoTracker3
    device: torch.device
    grid: int  # points a side
    batch: int  # frames through the encoder at once

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tracks:  # (3, F, H, W) in [0, 1]
        height, width = video.shape[2:]
        features = [self._encode(part) for part in video.movedim(1, 0).split(self.batch)]
        points = model_grid(self.grid).to(self.device)
        places, seen = self.network(pyramid(torch.cat(features)), points)
        visible = seen > VISIBLE
        places[0], visible[0] = points, True  # where they were asked for
        shrunk = places.new_tensor([(width - 1) / (WIDTH - 1), (height - 1) / (HEIGHT - 1)])
        return Tracks((places * shrunk).cpu().numpy(), visible.cpu().numpy())

    def _encode(self, frames: Tensor) -> Tensor:  # (T, 3, H, W) in [0, 1] -> (T, C, h, w)
        size = (HEIGHT, WIDTH)
        scaled = interpolate(frames.to(self.device), size, mode="bilinear", align_corners=True)
        return self.network.features(scaled)


def load_cotracker(path: Path, device: torch.device, grid: int, batch: int) -> CoTracker:
    """From a published file, strictly. Raises JtError."""
    network = load_frozen(_bare(), read_tensors(path), path, device)
    return CoTracker(network, device, grid, batch)


def cotracker_problems(model: str) -> list[str]:
    return misfits(PUBLISHED, model, _bare)


def cotracker_identity() -> dict[str, Any]:
    how = {"size": [HEIGHT, WIDTH], "iterations": ITERATIONS, "visible_above": VISIBLE}
    return {"name": "cotracker", "version": "3 offline", **how}


class CoTracker3(nn.Module):
    """Correlates patches around each point's guess with the patch around its query, and lets a
    transformer correct all guesses, again and again"""

    def __init__(self) -> None:
        super().__init__()
        self.fnet = Encoder()
        self.updateformer = UpdateFormer(INPUTS)
        self.corr_mlp = MLP(PATCH**4, 384, CORRELATED)
        self.register_buffer("time_emb", time_embedding())

    def features(self, frames: Tensor) -> Tensor:  # (T, 3, H, W) in [0, 1] -> (T, C, h, w)
        """Of length 1 in each cell."""
        return normalize(self.fnet(2 * frames - 1), dim=1, eps=1e-6)

    def forward(self, levels: Sequence[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        """Levels (T, C, h / 2^l, w / 2^l), points (N, 2) of the first frame in pixels -> places
        (T, N, 2) in pixels, and probabilities (T, N) of being visible."""
        queries = [
            patches(level[:1], points[None] / CELL / 2**depth)[0]
            for depth, level in enumerate(levels)
        ]
        frames = len(levels[0])
        places = (points / CELL).expand(frames, -1, -1)
        logits = points.new_zeros(frames, len(points), 2)  # of visibility and confidence
        for _ in range(ITERATIONS):
            tokens = self._tokens(levels, queries, places, logits)
            change = self.updateformer(tokens).transpose(0, 1)
            places, logits = places + change[..., :2], logits + change[..., 2:]
        return places * CELL, logits[..., 0].sigmoid()

    def _tokens(
        self, levels: Sequence[Tensor], queries: Sequence[Tensor], places: Tensor, logits: Tensor
    ) -> Tensor:  # (N, T, the transformer's width)
        time = stretched(self.time_emb, len(places))[0, :, None]  # (T, 1, INPUTS)
        taken = max(PLACES_AT_ONCE // len(places), 1)
        found = []
        for first in range(0, places.shape[1], taken):
            part = slice(first, first + taken)
            around = places[:, part]
            alike = [
                self.corr_mlp(correlate(patches(level, around / 2**depth), query[part]))
                for depth, (level, query) in enumerate(zip(levels, queries, strict=True))
            ]
            inputs = torch.cat([logits[:, part], *alike, encode_steps(around)], -1)
            found.append(self.updateformer.input_transform(inputs + time))
        return torch.cat(found, 1).transpose(0, 1)


def pyramid(features: Tensor) -> list[Tensor]:
    """(T, C, h, w) -> levels, each with half of the sides of the one before"""
    levels = [features]
    for _ in range(LEVELS - 1):
        levels.append(avg_pool2d(levels[-1], 2))
    return levels


def patches(level: Tensor, places: Tensor) -> Tensor:
    """(T, C, h, w) around places (T, N, 2) in cells -> (T, N, 7, 7, C), of which the x offset is
    the slower index; outside is as the nearest cell"""
    frames, points, _ = places.shape
    reach = torch.arange(-RADIUS, RADIUS + 1, device=places.device, dtype=places.dtype)
    window = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), -1)
    extent = places.new_tensor([level.shape[3] - 1, level.shape[2] - 1])
    wanted = 2 * (places[:, :, None, None] + window) / extent - 1  # (T, N, 7, 7, 2)
    found = grid_sample(level, wanted.flatten(1, 2), padding_mode="border", align_corners=True)
    return found.view(frames, -1, points, PATCH, PATCH).movedim(1, -1)


def correlate(around: Tensor, query: Tensor) -> Tensor:
    """Patches (T, N, 7, 7, C) and the queries' (N, 7, 7, C) -> (T, N, 7^4), each place of the one
    with each of the other"""
    return torch.einsum("tnxyc,nuvc->tnxyuv", around, query).flatten(2)


def encode_steps(places: Tensor) -> Tensor:
    """(T, N, 2) in cells -> (T, N, 84): how far it is to the next frame's place and from the last
    one's, as shares of the frame, with sines and cosines in ten octaves"""
    step = places.diff(dim=0)
    none = (0, 0, 0, 0)
    moves = torch.cat([pad(-step, (*none, 0, 1)), pad(step, (*none, 1, 0))], -1)
    moves = moves / (places.new_tensor([WIDTH, HEIGHT] * 2) / CELL)
    octaves = 2.0 ** torch.arange(OCTAVES, device=places.device, dtype=places.dtype)
    angles = (moves[..., None, :] * octaves[:, None]).flatten(-2)
    return torch.cat([moves, angles.sin(), (angles + torch.pi / 2).sin()], -1)


def time_embedding() -> Tensor:  # (1, WINDOW, INPUTS)
    """Sines, then cosines, of a frame's number at falling frequencies."""
    half = INPUTS // 2
    frequencies = 10000.0 ** -(torch.arange(half, dtype=torch.double) / half)
    angles = torch.arange(WINDOW, dtype=torch.double)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)[None].float()


def stretched(embedding: Tensor, frames: int) -> Tensor:  # (1, WINDOW, D) -> (1, frames, D)
    if frames == embedding.shape[1]:
        return embedding
    return interpolate(embedding.transpose(1, 2), frames, mode="linear").transpose(1, 2)


def _bare() -> CoTracker3:
    with torch.device("meta"):
        return CoTracker3()


def model_grid(size: int) -> Tensor:
    """(size², 2), row by row, in pixels of the scaled video; a 64th of its width is left free."""
    margin = WIDTH / 64
    rows = np.linspace(margin, HEIGHT - margin, size)
    columns = np.linspace(margin, WIDTH - margin, size)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2)).float()
