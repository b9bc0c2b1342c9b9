"""The patch codec that stands in the VAE's place: an orthonormal map of blocks of pixels."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from attrs import frozen
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

BLOCK = 6  # px, side of a block
CHANNELS = 48


class PatchCodec(nn.Module):
    """Principal components of BLOCK x BLOCK x 3 pixels; deterministic, the same for every frame

    `basis` is orthonormal, so an L2 error of latents is, times `scale`, that of the pixels.
    """

    def __init__(self, block: int = BLOCK, channels: int = CHANNELS) -> None:
        super().__init__()
        self.block, self.channels = block, channels
        self.register_buffer("mean", torch.zeros(3 * block * block))
        self.register_buffer("basis", torch.eye(3 * block * block, channels))
        self.register_buffer("scale", torch.ones(()))

    def encode(self, pixels: Tensor) -> Tensor:  # (B, 3, F, H, W) in [-1, 1] -> (B, C, F, h, w)
        blocks = to_blocks(pixels, self.block)  # (B, F, h, w, 3 * block^2)
        return ((blocks - self.mean) @ self.basis / self.scale).movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:  # (B, C, F, h, w) -> (B, 3, F, H, W), not clipped
        blocks = latents.movedim(1, -1) @ self.basis.T * self.scale + self.mean
        return from_blocks(blocks, self.block)

    @torch.no_grad()
    def fit(self, pixels: Tensor) -> None:  # (B, 3, F, H, W)
        """Set mean, basis and scale so that the latents of `pixels` have unit variance in all."""
        blocks = to_blocks(pixels, self.block).flatten(0, -2).double()
        mean = blocks.mean(0)
        variances, axes = torch.linalg.eigh((blocks - mean).T @ (blocks - mean) / len(blocks))
        basis = axes.flip(1)[:, : self.channels]
        basis = basis * basis.sum(0).sign()  # eigenvectors have no sign of their own: fix it
        self.mean.copy_(mean)
        self.basis.copy_(basis)
        self.scale.copy_(variances.flip(0)[: self.channels].mean().sqrt())

    def save_pretrained(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": "PatchCodec", "block": self.block, "channels": self.channels}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PatchCodec:
        config = json.loads((Path(folder) / "config.json").read_text())
        codec = cls(config["block"], config["channels"])
        codec.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        return codec


@frozen(eq=False)
class PocketCodec:
    """The patch codec behind a VAE's interface"""

    patches: PatchCodec

    def encode(self, pixels: Tensor, rng: Generator) -> Tensor:
        """(B, 3, frames, height, width) in [-1, 1] -> (B, C, F, H, W); `rng` is not drawn from."""
        return self.patches.encode(pixels)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, 3, frames, height, width) in [-1, 1]."""
        return self.patches.decode(latents).clamp(-1, 1)


def to_blocks(pixels: Tensor, side: int) -> Tensor:  # (B, 3, F, H, W) -> (B, F, h, w, 3 * side^2)
    b, c, f, h, w = pixels.shape
    cut = pixels.reshape(b, c, f, h // side, side, w // side, side)
    return cut.permute(0, 2, 3, 5, 1, 4, 6).flatten(4)


def from_blocks(blocks: Tensor, side: int) -> Tensor:  # (B, F, h, w, 3 * side^2) -> (B, 3, F, H, W)
    b, f, h, w, _ = blocks.shape
    pasted = blocks.unflatten(-1, (3, side, side)).permute(0, 4, 1, 2, 5, 3, 6)
    return pasted.reshape(b, 3, f, h * side, w * side)
