"""MUSIQ, a transformer over patches of an image at several sizes
(https://arxiv.org/abs/2108.05997), with the tensors of pyiqa's files."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, isqrt

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional

PATCH = 32  # px
LONGER_SIDES = (224, 384)  # px, of the copies that are seen beside the picture itself
STEM = 64  # channels
HEAD = 64  # channels of an attention head


@frozen
class Sizes:
    """What can differ between files; the defaults are the published network's."""

    width: int = 384
    hidden: int = 1152  # of the two-layer networks
    layers: int = 14
    grid: int = 10  # places along each axis that have an embedding


def sizes_of(tensors: Mapping[str, Tensor]) -> Sizes:
    """Of the network that a file is of; the published ones where it is of none."""
    try:
        width = len(tensors["embedding.weight"])
        hidden = len(tensors["transformer_encoder.transformer.encoderblock_0.mlp.fc1.weight"])
        places = tensors["transformer_encoder.posembed_input.position_emb"].shape[1]
    except (KeyError, IndexError):
        return Sizes()
    blocks = {name.split(".")[2] for name in tensors if ".encoderblock_" in name}
    return Sizes(width, hidden, len(blocks), isqrt(places)) if width % HEAD == 0 else Sizes()


class MUSIQ(nn.Module):
    """How good pictures look: the score of the first token after the transformer

    Attention is over all patches of a picture and its two copies. The released code fills up
    shorter sequences and masks what it filled in; here all pictures of a batch have one size, so
    nothing is filled in, which changes no score.
    """

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.conv_root = StandardisedConv(3, STEM, 7, stride=2)
        self.gn_root = nn.GroupNorm(32, STEM, eps=1e-6)
        self.block1 = Bottleneck(STEM, 4 * STEM)
        self.embedding = nn.Linear(4 * STEM * (PATCH // 4) ** 2, sizes.width)
        self.transformer_encoder = Encoder(sizes)
        self.head = nn.Linear(sizes.width, 1)

    def forward(self, pictures: Tensor) -> Tensor:  # (B, 3, H, W) in [0, 1] -> (B,), about 0 to 100
        pictures = 2 * pictures - 1
        seen = [*(scaled(pictures, side) for side in LONGER_SIDES), pictures]
        tokens = []
        for scale, picture in enumerate(seen):
            cut, rows, columns = patches(picture)
            places = hashed_places(rows, columns, self.transformer_encoder.grid)
            embedded = self.embed(cut.flatten(0, 1)).unflatten(0, cut.shape[:2])
            tokens.append(self.transformer_encoder.place(embedded, places, scale))
        return self.head(self.transformer_encoder(torch.cat(tokens, 1)))[:, 0]

    def embed(self, cut: Tensor) -> Tensor:  # (N, 3, PATCH, PATCH) -> (N, D)
        x = self.gn_root(self.conv_root(cut)).relu()
        x = functional.max_pool2d(pad_as_needed(x, 3, 2), 3, 2)
        x = self.block1(x)
        return self.embedding(x.movedim(1, -1).flatten(1))  # channels last, as it was trained


class Encoder(nn.Module):
    """A transformer over tokens that are told where and at which size they were cut out"""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.width
        self.grid = sizes.grid
        self.posembed_input = nn.ParameterDict(
            {"position_emb": nn.Parameter(0.02 * torch.randn(1, sizes.grid**2, width))}
        )
        self.scaleembed_input = nn.ParameterDict(
            {"scale_emb": nn.Parameter(0.02 * torch.randn(len(LONGER_SIDES) + 1, width))}
        )
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = nn.ModuleDict(
            {f"encoderblock_{index}": Block(width, sizes.hidden) for index in range(sizes.layers)}
        )
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)

    def place(self, tokens: Tensor, places: Tensor, scale: int) -> Tensor:
        """(B, N, D) of one size, with what their (N,) places and that size add"""
        where = self.posembed_input["position_emb"][0, places.to(tokens.device)]
        return tokens + where + self.scaleembed_input["scale_emb"][scale]

    def forward(self, tokens: Tensor) -> Tensor:  # (B, N, D) -> (B, D)
        x = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)
        for block in self.transformer.values():
            x = block(x)
        return self.encoder_norm(x[:, 0])


class Block(nn.Module):
    """Attention and a two-layer network, each behind a norm and added to the stream"""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm2(x))))


class Attention(nn.Module):
    """Multi-head self-attention"""

    def __init__(self, width: int):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        heads = [
            part(x).unflatten(-1, (-1, HEAD)).transpose(1, 2)  # (B, heads, N, HEAD)
            for part in (self.query, self.key, self.value)
        ]
        mixed = functional.scaled_dot_product_attention(*heads)
        return self.out(mixed.transpose(1, 2).flatten(2))


class StandardisedConv(nn.Conv2d):
    """A convolution whose filters are brought to mean 0 and deviation 1
    (https://arxiv.org/abs/1903.10520)"""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1):
        super().__init__(channels, out, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, out, h / stride, w / stride)
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        x = pad_as_needed(x, self.kernel_size[0], self.stride[0])
        return functional.conv2d(x, weight, stride=self.stride)


class Bottleneck(nn.Module):
    """Three standardised convolutions, around which a projection leads"""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv1 = StandardisedConv(channels, channels, 1)
        self.gn1 = nn.GroupNorm(32, channels, eps=1e-4)
        self.conv2 = StandardisedConv(channels, channels, 3)
        self.gn2 = nn.GroupNorm(32, channels, eps=1e-4)
        self.conv3 = StandardisedConv(channels, out, 1)
        self.gn3 = nn.GroupNorm(32, out, eps=1e-4)
        self.conv_proj = StandardisedConv(channels, out, 1)
        self.gn_proj = nn.GroupNorm(32, out, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, out, h, w)
        around = self.gn_proj(self.conv_proj(x))
        x = self.gn1(self.conv1(x)).relu()
        x = self.gn2(self.conv2(x)).relu()
        return (self.gn3(self.conv3(x)) + around).relu()


def scaled(pictures: Tensor, longer: int) -> Tensor:  # (B, 3, H, W) -> (B, 3, h, w)
    """With a longer side of so many pixels: bicubic, not antialiased, as pyiqa does it."""
    height, width = pictures.shape[2:]
    ratio = longer / max(height, width)
    size = max(round(height * ratio), 1), max(round(width * ratio), 1)
    return functional.interpolate(pictures, size, mode="bicubic", align_corners=False)


def patches(pictures: Tensor) -> tuple[Tensor, int, int]:
    """(B, 3, H, W) -> (B, rows x columns, 3, PATCH, PATCH) row by row, rows, and columns; grey is
    put around what does not fill the last ones."""
    filled = pad_as_needed(pictures, PATCH, PATCH)
    cut = filled.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # (B, 3, r, PATCH, c, PATCH)
    rows, columns = cut.shape[2], cut.shape[4]
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2), rows, columns


def hashed_places(rows: int, columns: int, grid: int) -> Tensor:  # (rows x columns,), integers
    """Which of grid x grid places each patch is at: the picture is stretched over the grid."""

    def along(count: int) -> Tensor:
        ticks = torch.arange(grid, dtype=torch.float32)[None, None]
        return functional.interpolate(ticks, count, mode="nearest")[0, 0].long()

    return (along(rows)[:, None] * grid + along(columns)).flatten()


def pad_as_needed(x: Tensor, kernel: int, stride: int) -> Tensor:  # (N, C, h, w)
    """Zeros around it, so that ceil(h / stride) x ceil(w / stride) windows fit: what is odd goes
    to the right and the bottom, as in TensorFlow."""
    spare = [(ceil(side / stride) - 1) * stride + kernel - side for side in x.shape[2:]]
    tall, wide = (max(each, 0) for each in spare)
    return functional.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
