"""A backbone of two linear layers, training in milliseconds: a stranger's plugin."""

import zlib
from collections.abc import Sequence

import torch
from attrs import field, frozen
from attrs.validators import gt
from torch import Generator, Tensor, nn
from torch.nn import functional

from jtcore import hookimpl
from jtcore.diffusion import Levels
from jtcore.errors import JtError
from jtcore.noise import PLAIN, Draws
from jtcore.targets import match_targets
from jtcore.types import Noised

SIDE = 4  # px of a latent
TEXT = 2  # width of a token
ROLES = {"visual": ("inner", "outer")}


@frozen
class Tiny:
    """Two linear layers, with flow matching"""

    width: int = field(default=6, validator=gt(0))

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        if height % SIDE or width % SIDE:
            raise ValueError(f"tiny needs multiples of {SIDE} px, found {height}x{width}")
        return 3, frames, height // SIDE, width // SIDE

    def prompt_problems(self, prompts: Sequence[str]) -> list[str]:
        return [f"{prompt!r} shouts" for prompt in prompts if prompt.isupper()]

    def denoiser_identity(self) -> str:
        return "tiny"

    def text_identity(self) -> str:
        return "tiny"

    def codec_identity(self) -> str:
        return "tiny"

    def load_text_encoder(self, device: torch.device) -> "Words":
        return Words()

    def load_codec(self, device: torch.device) -> "Means":
        return Means()

    def load(self, device: torch.device, dtype: torch.dtype) -> "TinyBackbone":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            denoiser = Denoiser(self.width)
        return TinyBackbone(denoiser.requires_grad_(False).to(device, dtype))


class Denoiser(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Linear(3 + TEXT + 1, width)
        self.outer = nn.Linear(width, 3)

    def forward(self, tokens: Tensor) -> Tensor:  # (B, N, 3 + TEXT + 1) -> (B, N, 3)
        return self.outer(self.inner(tokens).tanh())


@frozen(eq=False)
class TinyBackbone:
    denoiser: Denoiser
    prediction = "flow"

    def targets(self, query: str) -> dict[str, nn.Module]:
        return match_targets(self.denoiser, ROLES, query)

    def noise(self, latents: Tensor, rng: Generator, draws: Draws = PLAIN) -> Noised:
        times = draws.moved(torch.rand(len(latents), generator=rng)).to(latents.device)
        noise = draws.noise(latents.shape, rng).to(latents.device)
        mixed = torch.lerp(latents, noise, times.view(-1, 1, 1, 1, 1))
        return Noised(mixed, times, noise - latents)

    def predict(self, latents: Tensor, times: Tensor, text: Tensor) -> Tensor:
        tokens = latents.flatten(2).transpose(1, 2)  # (B, N, 3)
        told = torch.cat([text.mean(1), times[:, None]], 1)  # (B, TEXT + 1)
        told = told[:, None].expand(-1, tokens.shape[1], -1)
        joined = torch.cat([tokens, told], 2).to(self.denoiser.inner.weight.dtype)
        return self.denoiser(joined).transpose(1, 2).reshape(latents.shape)

    def blocks(self) -> dict[str, nn.Module]:
        return {"inner": self.denoiser.inner, "outer": self.denoiser.outer}

    def levels(self, times: Tensor) -> Levels:
        return Levels(1 - times.double(), times.double())

    def sampler(self, steps: int, scheduler: str | None = None) -> "Euler":
        if scheduler not in (None, "euler"):
            raise JtError(f"unknown scheduler {scheduler!r}; known is 'euler'")
        return Euler(tuple(torch.linspace(1, 0, steps + 1)[:-1]))


@frozen(eq=False)
class Euler:
    times: Sequence[Tensor]

    def start(self, shape: Sequence[int], rng: Generator) -> Tensor:
        return torch.randn(*shape, generator=rng)

    def step(self, prediction: Tensor, index: int, latents: Tensor, rng: Generator) -> Tensor:
        return latents - prediction / len(self.times)


class Words:
    def embed(self, prompts: Sequence[str]) -> Tensor:  # (B, 1, TEXT)
        numbers = [zlib.crc32(prompt.encode()) % 7 / 7 for prompt in prompts]
        return torch.tensor([[[number, 1 - number]] for number in numbers])


class Means:
    def encode(self, pixels: Tensor, rng: Generator) -> Tensor:
        return functional.avg_pool3d(pixels, (1, SIDE, SIDE))

    def decode(self, latents: Tensor) -> Tensor:
        return latents.repeat_interleave(SIDE, 3).repeat_interleave(SIDE, 4).clamp(-1, 1)


@hookimpl
def jt_backbones() -> dict[str, type]:
    return {"tiny": Tiny}
