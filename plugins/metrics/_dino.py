"""DINO (https://arxiv.org/abs/2104.14294) and DINOv2 as metrics look through them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ._checkpoints import Checkpoint
from ._clip import Looking
from ._preparations import Preparation

CLASSES = {  # of transformers, with options, by what config.json calls the network
    "vit": ("ViTModel", {"add_pooling_layer": False}),
    "dinov2": ("Dinov2Model", {}),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {}),
}


def with_pictures(model: str) -> Checkpoint:
    """A DINO, and how it says itself that pictures are prepared."""
    return Checkpoint("model", model, ("network", "pictures"), tuple(CLASSES))


def bare(model: str) -> Checkpoint:
    """A DINO of the first kind, whose pictures others prepare."""
    return Checkpoint("model", model, ("network",), ("vit",))


def load(checkpoint: Checkpoint, prepare: Preparation, batch: int, device: torch.device) -> Looking:
    """What it answers is the normalised class token of the last layer. Raises JtError."""
    kind = checkpoint.config()["model_type"]
    cls, options = CLASSES[kind]
    network = checkpoint.load(cls, device, **options)
    if kind != "vit":  # whose newer siblings take any shape unasked
        return Looking(lambda pixels: _class_token(network(pixels)), prepare, batch, device)
    network.embeddings.interpolate_pos_encoding = partial(positions, network.embeddings)

    def embed(pixels: Tensor) -> Tensor:
        return _class_token(network(pixels, interpolate_pos_encoding=True))

    return Looking(embed, prepare, batch, device)


def positions(embeddings: nn.Module, tokens: Tensor, height: int, width: int) -> Tensor:
    """The position embeddings of a picture of this size, (1, 1 + h w, D), as DINO's own code has
    them: it adds 0.1 to the rows and columns asked for, which moves where they are read, while
    transformers does not."""
    known = embeddings.position_embeddings
    count = known.shape[1] - 1
    if tokens.shape[1] - 1 == count and height == width:
        return known
    grid = known[:, 1:].unflatten(1, (round(count**0.5), -1)).permute(0, 3, 1, 2)
    asked = [side // embeddings.patch_size + 0.1 for side in (height, width)]
    scales = [side / count**0.5 for side in asked]
    spread = interpolate(grid, scale_factor=scales, mode="bicubic")
    return torch.cat((known[:, :1], spread.flatten(2).transpose(1, 2)), 1)


def _class_token(answer: object) -> Tensor:  # (B, D)
    return answer.last_hidden_state[:, 0]
