"""Wan 2.1's denoiser (https://arxiv.org/abs/2503.20314), over diffusers' classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from attrs import frozen
from torch import Generator, Tensor, nn

from jtcore.attention import TextAttention
from jtcore.diffusion import Levels, noised
from jtcore.noise import PLAIN, Draws
from jtcore.targets import Targets, match_targets
from jtcore.types import Entrance, Noised, Site, Vocabulary

from . import _roles
from ._samplers import Kind, StockSampler, sampler
from ._sites import match_sites

if TYPE_CHECKING:  # importing diffusers costs seconds
    from diffusers import WanTransformer3DModel

PAIRS = (("norm1", "attn1"), ("norm2", "attn2"), ("norm3", "ffn"))  # in each block


@frozen(eq=False)
class WanBackbone:
    """A denoiser that predicts the flow noise - x0, at times of 1000 sigma

    `shift` moves the times of training and sampling towards noise; `scheduler` is the checkpoint's.
    Noise and times are float32, whatever the latents are and the denoiser computes in.
    """

    denoiser: WanTransformer3DModel
    scheduler: Any
    shift: float
    vocabulary: Vocabulary | None = None
    prediction = "flow"

    def targets(self, query: Targets) -> dict[str, nn.Module]:
        return match_targets(self.denoiser, _roles.WAN, query)

    def blocks(self) -> dict[str, nn.Module]:
        return {f"blocks.{index}": block for index, block in enumerate(self.denoiser.blocks)}

    def sites(self, query: Targets) -> dict[str, Site]:
        return match_sites(self.blocks(), PAIRS, self.targets(query), query)

    def text_attentions(self) -> dict[str, TextAttention]:
        """The attention of every block to the text alone."""
        patch = tuple(self.denoiser.config.patch_size)
        return {
            f"{name}.attn2": TextAttention(block.attn2, joint=False, patch=patch)
            for name, block in self.blocks().items()
        }

    def entrance(self) -> Entrance:
        """Video tokens, and those of the text; the time's embedding before it is projected."""
        network, embedder = self.denoiser, self.denoiser.condition_embedder
        width = network.config.num_attention_heads * network.config.attention_head_dim
        tokens = network.patch_embedding, embedder.text_embedder
        return Entrance(tokens, embedder.time_embedder, width, width)

    def noise(
        self, latents: Tensor, rng: Generator, draws: Draws = PLAIN
    ) -> Noised:  # latents (B, C, F, H, W)
        """At times drawn uniformly, but for what `draws` says, and shifted as sampling shifts its
        own: sigma = shift u / (1 + (shift - 1) u), u ~ U(0, 1], which is equation 23 of
        https://arxiv.org/abs/2403.03206.

        Uniform u is what DiffSynth-Studio trains adapters of Wan with; Wan itself was trained with
        u of a logit-normal distribution. Drawn on the CPU, alike on every device.
        """
        uniform = draws.moved(1 - torch.rand(len(latents), generator=rng))
        noise = draws.noise(latents.shape, rng).to(latents.device)
        times = self._whole * shifted(uniform, self.shift)
        at = self.levels(times)
        return noised(self.prediction, latents, noise, times.to(latents.device), at)

    def levels(self, times: Tensor) -> Levels:  # (B,)
        sigma = times.double().cpu() / self._whole
        return Levels(1 - sigma, sigma)

    def predict(
        self, latents: Tensor, times: Tensor, text: Tensor
    ) -> Tensor:  # (B, C, F, H, W), (B,), (B, L, D) -> (B, C, F, H, W)
        dtype = self.denoiser.dtype
        flow = self.denoiser(
            latents.to(dtype), times.to(latents.device), text.to(dtype), return_dict=False
        )[0]
        return flow.to(latents.dtype)

    def sampler(self, steps: int, scheduler: str | None = None) -> StockSampler:
        return sampler(self.scheduler, self._kinds(), scheduler, steps, frames_first=False)

    @property
    def _whole(self) -> int:
        """The time of pure noise."""
        return self.scheduler.config.num_train_timesteps

    def _kinds(self) -> dict[str, Kind]:
        """Schedulers by name, the checkpoint's own first."""
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
        unipc = Kind("UniPCMultistepScheduler", {**flow, "flow_shift": self.shift})
        euler = Kind("FlowMatchEulerDiscreteScheduler", {"shift": self.shift})
        if type(self.scheduler).__name__ == euler.cls:
            return {"euler": euler, "unipc": unipc}
        return {"unipc": unipc, "euler": euler}


def shifted(uniform: Tensor, shift: float) -> Tensor:  # (B,) in [0, 1] -> (B,) in [0, 1]
    return shift * uniform / (1 + (shift - 1) * uniform)


def keep_times_precise(denoiser: WanTransformer3DModel) -> WanTransformer3DModel:
    """Diffusers keeps the embedding of times in float32; under autocast it computes in it too."""
    embedder = denoiser.condition_embedder.time_embedder
    embedder.forward = partial(_without_autocast, embedder.forward)
    return denoiser


def _without_autocast(forward: Callable[[Tensor], Tensor], times: Tensor) -> Tensor:  # (B, D)
    with torch.autocast(times.device.type, enabled=False):
        return forward(times)
