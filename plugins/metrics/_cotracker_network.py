"""CoTracker3's networks (https://arxiv.org/abs/2410.11831), with the tensors of the published
`scaled_offline.pth`.

Axes: T frames, N points, V virtual tracks, C channels, h and w cells of 4x4 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu, scaled_dot_product_attention

from ._residual import residual_pair

CELL = 4  # pixels
CHANNELS = 128  # of a cell
WIDTH, HEADS, DEPTH = 384, 8, 3  # of the transformer
VIRTUAL = 64  # tracks that carry news between the points
TOKENS_AT_ONCE = 1 << 14  # that a block takes: what it holds does not grow with N or T


class Encoder(nn.Module):
    """Features of frames: (B, 3, H, W) -> (B, C, h, w), out of four depths"""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.InstanceNorm2d
        self.norm1, self.norm2 = norm(64), norm(256)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.layer1 = residual_pair(64, 64, 1, norm)
        self.layer2 = residual_pair(64, 96, 2, norm)
        self.layer3 = residual_pair(96, 128, 2, norm)
        self.layer4 = residual_pair(128, 128, 2, norm)
        self.conv2 = nn.Conv2d(64 + 96 + 128 + 128, 256, 3, padding=1)
        self.conv3 = nn.Conv2d(256, CHANNELS, 1)

    def forward(self, images: Tensor) -> Tensor:
        size = images.shape[2] // CELL, images.shape[3] // CELL
        features, depths = relu(self.norm1(self.conv1(images))), []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = layer(features)
            depths.append(interpolate(features, size, mode="bilinear", align_corners=True))
        return self.conv3(relu(self.norm2(self.conv2(torch.cat(depths, 1)))))


class UpdateFormer(nn.Module):
    """How each point's track is to change: attention over time within a track, and between tracks
    by way of virtual ones"""

    def __init__(self, inputs: int):
        super().__init__()
        self.input_transform = nn.Linear(inputs, WIDTH)
        self.flow_head = nn.Linear(WIDTH, 2)
        self.vis_conf_head = nn.Linear(WIDTH, 2)
        self.virual_tracks = nn.Parameter(torch.zeros(1, VIRTUAL, 1, WIDTH))  # as files spell it
        blocks = {
            "time_blocks": Block,
            "space_virtual_blocks": Block,
            "space_point2virtual_blocks": CrossBlock,
            "space_virtual2point_blocks": CrossBlock,
        }
        for name, block in blocks.items():
            setattr(self, name, nn.ModuleList(block() for _ in range(DEPTH)))

    def forward(self, tokens: Tensor) -> Tensor:  # (N, T, WIDTH), transformed -> (N, T, 4)
        """Shifts right and down in cells, and changes of the logits of visibility and confidence"""
        points, frames, _ = tokens.shape
        virtual = self.virual_tracks[0].expand(-1, frames, -1)
        tokens = torch.cat([tokens, virtual])
        for depth in range(DEPTH):
            tokens = in_parts(self.time_blocks[depth], tokens)
            tokens = in_parts(partial(self._share, depth, points), tokens.transpose(0, 1))
            tokens = tokens.transpose(0, 1)
        return torch.cat([self.flow_head(tokens[:points]), self.vis_conf_head(tokens[:points])], -1)

    def _share(self, depth: int, points: int, tokens: Tensor) -> Tensor:  # (T, N + V, WIDTH)
        own, virtual = tokens[:, :points], tokens[:, points:]
        virtual = self.space_virtual2point_blocks[depth](virtual, own)
        virtual = self.space_virtual_blocks[depth](virtual)
        own = self.space_point2virtual_blocks[depth](own, virtual)
        return torch.cat([own, virtual], 1)


def in_parts(block: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:  # (R, L, WIDTH), the same
    """What a block answers to all rows, of which it takes a few at a time."""
    taken = max(TOKENS_AT_ONCE // rows.shape[1], 1)
    return torch.cat([block(part) for part in rows.split(taken)])


class Attention(nn.Module):
    """Of queries (R, L, WIDTH) to a context (R, M, WIDTH)"""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(WIDTH, WIDTH)
        self.to_kv = nn.Linear(WIDTH, 2 * WIDTH)
        self.to_out = nn.Linear(WIDTH, WIDTH)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        projected = [self.to_q(queries), *self.to_kv(context).chunk(2, -1)]
        heads = [each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in projected]
        return self.to_out(scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a GELU between"""

    def __init__(self, inputs: int, inner: int, outputs: int, approximate: str = "none"):
        super().__init__()
        self.fc1 = nn.Linear(inputs, inner)
        self.act = nn.GELU(approximate)
        self.fc2 = nn.Linear(inner, outputs)

    def forward(self, inputs: Tensor) -> Tensor:  # (..., inputs) -> (..., outputs)
        return self.fc2(self.act(self.fc1(inputs)))


class Block(nn.Module):
    """Attention of tokens to each other, then an MLP, each on the normed stream"""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(), _norm()
        self.attn = Attention()
        self.mlp = MLP(WIDTH, 4 * WIDTH, WIDTH, "tanh")

    def forward(self, tokens: Tensor) -> Tensor:  # (R, L, WIDTH), the same
        normed = self.norm1(tokens)
        tokens = tokens + self.attn(normed, normed)
        return tokens + self.mlp(self.norm2(tokens))


class CrossBlock(nn.Module):
    """Attention of tokens to others, then an MLP"""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(), _norm()
        self.norm_context = nn.LayerNorm(WIDTH)
        self.cross_attn = Attention()
        self.mlp = MLP(WIDTH, 4 * WIDTH, WIDTH, "tanh")

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:  # (R, L, WIDTH), (R, M, WIDTH)
        tokens = tokens + self.cross_attn(self.norm1(tokens), self.norm_context(others))
        return tokens + self.mlp(self.norm2(tokens))


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(WIDTH, eps=1e-6, elementwise_affine=False)
