"""A codec and a text encoder to check streams against, and what is drawn of those."""

import torch

from jtcore.types import Part

CPU = torch.device("cpu")


class Blocks:
    """A codec and text encoder to check against: latents are the means of 8x8 px, plus noise that
    is drawn but too small to see."""

    def __init__(self, version="1"):
        self.version = version
        self.loaded = []  # in order: each codec and text encoder that was asked for
        self.worked = []  # each clip's shape or caption

    def latent_shape(self, frames, height, width):
        return 3, frames, height // 8, width // 8

    def codec_identity(self):
        return f"codec {self.version}"

    def text_identity(self):
        return f"text {self.version}"

    def load_codec(self, device):
        self.loaded.append("codec")
        return self

    def load_text_encoder(self, device):
        self.loaded.append("text")
        return self

    def encode(self, pixels, rng):  # (B, 3, F, H, W) in [-1, 1] -> (B, 3, F, H/8, W/8)
        self.worked.append(tuple(pixels.shape))
        means = torch.nn.functional.avg_pool3d(pixels, (1, 8, 8))
        return means + 1e-6 * torch.randn(means.shape, generator=rng)

    def embed(self, prompts):  # (B, 2, 4)
        self.worked.append(tuple(prompts))
        return torch.stack([torch.full((2, 4), float(len(prompt))) for prompt in prompts])


def drawn(stream, texts, draws, seed=(0, "joint")):
    rng = torch.Generator().manual_seed(7)
    return [stream.part(seed, draw, rng, texts) for draw in draws]


def same(one: Part, other: Part):
    return one.prompts == other.prompts and torch.equal(one.latents, other.latents)
