"""One step of pocket's pretraining, and all the state that steps change."""

from __future__ import annotations

import numpy as np
import torch
from attrs import frozen
from torch import Generator, Tensor, nn

from .captions import CaptionNoise, noisy_caption
from .models import Pocket
from .plan import Plan
from .world import FRAMES, Scene, draw_scene, render


@frozen
class Training:
    """The networks, their moving averages and the optimizers: what a checkpoint holds"""

    networks: nn.ModuleList
    averages: nn.ModuleList
    optimizers: tuple[torch.optim.Optimizer, ...]

    @classmethod
    def begin(cls, pocket: Pocket, averaged: Pocket, plan: Plan) -> Training:
        networks = nn.ModuleList([pocket.transformer, pocket.text_encoder])
        averages = nn.ModuleList([averaged.transformer, averaged.text_encoder])
        blocks = pocket.transformer.transformer_blocks
        matrices = [weight for weight in blocks.parameters() if weight.ndim == 2]
        taken = {id(weight) for weight in matrices}
        others = [weight for weight in networks.parameters() if id(weight) not in taken]
        muon = torch.optim.Muon(matrices, lr=plan.matrix_lr, weight_decay=0.1)
        adam = torch.optim.AdamW(others, lr=plan.lr, betas=(0.9, 0.99), weight_decay=0.0)
        return cls(networks, averages, (muon, adam))

    def state(self) -> dict:
        return {
            "networks": self.networks.state_dict(),
            "averages": self.averages.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, state: dict) -> None:
        self.networks.load_state_dict(state["networks"])
        self.averages.load_state_dict(state["averages"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def update(self, plan: Plan, step: int) -> None:
        """Take the step that the gradients ask for, then move the averages."""
        for optimizer, lr in zip(self.optimizers, (plan.matrix_lr, plan.lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr * plan.rate(step)
            optimizer.step()
            optimizer.zero_grad()
        decay = min(plan.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            now, mean = list(self.networks.parameters()), list(self.averages.parameters())
            torch._foreach_lerp_(mean, now, 1 - decay)


def train_step(
    pocket: Pocket, training: Training, plan: Plan, seed: int, step: int
) -> tuple[str, float]:
    """One update; whether it was on images or videos, and its loss."""
    rng = np.random.default_rng([seed, step])
    frames = 1 if rng.random() < plan.image_share else plan.frames(step)
    batch = plan.image_batch if frames == 1 else plan.video_batch * FRAMES // frames
    pixels, captions = draw_clips(rng, batch, frames, plan, step)
    noise = torch.Generator().manual_seed(int(rng.integers(2**63)))
    loss = v_loss(pocket, pocket.codec.encode(pixels), captions, noise)
    loss.backward()
    nn.utils.clip_grad_norm_(training.networks.parameters(), 1.0)
    training.update(plan, step)
    return ("image" if frames == 1 else "video"), loss.item()


def draw_clips(
    rng: np.random.Generator, batch: int, frames: int, plan: Plan, step: int
) -> tuple[Tensor, list[str]]:  # (B, 3, F, H, W) in [-1, 1], captions
    """Clips of the world as it is at `step`, and what is said of them."""
    scenes = draw_scenes(rng, batch, plan, step)
    noise = CaptionNoise(place=plan.freedom(step) * plan.unplaced)
    captions = [noisy_caption(scene, noise, rng) for scene in scenes]
    return torch.from_numpy(render(scenes, frames)), captions


def draw_scenes(rng: np.random.Generator, batch: int, plan: Plan, step: int) -> list[Scene]:
    """Scenes as they are at `step`: positions grow freer late in training."""
    motion = "stays" if step < plan.standing_steps else None
    anchor = "mid" if step < plan.centred_steps else None
    offset = plan.offset + plan.freedom(step) * (plan.wide_offset - plan.offset)
    return [draw_scene(rng, offset, motion, anchor) for _ in range(batch)]


def v_loss(pocket: Pocket, latents: Tensor, captions: list[str], rng: Generator) -> Tensor:
    """Mean squared error of v for `latents` (B, C, F, H, W) at uniformly drawn times."""
    alphas = pocket.scheduler.alphas_cumprod.float()
    times = torch.randint(len(alphas), (len(latents),), generator=rng)
    alpha = alphas[times].view(-1, 1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=rng)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    return (pocket.predict(noisy, times, pocket.embed(captions)) - target).square().mean()
