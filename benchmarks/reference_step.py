"""A training step as JointTuner's released code takes it, written from its description.

(https://arxiv.org/abs/2503.23951) Gate, down and up are each a linear of its own in float32 beside
each layer, under autocast; nothing is compiled; the norm and the loss are read each step.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from jtcore.trainer import Trainer
from jtcore.types import Part

CLIP, LR = 1.0, 1e-4


class Unfused(nn.Module):
    """mean(sigmoid(w x)) * dropout(U D x) beside W x + b, one operation after another"""

    def __init__(self, base: nn.Linear, rank: int, dropout: float):
        super().__init__()
        device, bias = base.weight.device, False
        self.down = nn.Linear(base.in_features, rank, bias, device)
        self.up = nn.Linear(rank, base.out_features, bias, device)
        self.gate = nn.Linear(base.in_features, 1, bias, device)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, output: Tensor) -> Tensor:  # (B, tokens, in), (B, tokens, out)
        wide = x.to(self.down.weight.dtype)
        gate = torch.sigmoid(self.gate(wide)).mean(0).mean(0)
        return output + (self.dropout(self.up(self.down(wide))) * gate).to(output.dtype)


class ReferenceLoop:
    """On the denoiser, the targets and the data of a trainer, whose adapters stay off."""

    def __init__(self, trainer: Trainer, adapter: str) -> None:
        self.trainer, self.on = trainer, False
        spec = trainer.recipe.adapter[adapter].spec
        targets = trainer.model.backbone.targets(spec.targets)
        build = partial(Unfused, rank=spec.rank, dropout=spec.dropout)
        self.updates = nn.ModuleList([build(linear) for linear in targets.values()])
        for update, linear in zip(self.updates, targets.values(), strict=True):
            linear.register_forward_hook(partial(self._add, update))
        self.optimizer = torch.optim.AdamW(self.updates.parameters(), lr=LR)

    def _add(self, update: Unfused, linear: nn.Linear, inputs: tuple, output: Tensor):
        return update(inputs[0], output) if self.on else None

    def step(self, part: Part) -> float:
        """On one sample; a clip's prediction is shifted by noise that its frames and channels
        share. Returns the loss."""
        self.on = True
        try:
            loss = self._loss(part)
            loss.backward()
        finally:
            self.on = False
        nn.utils.clip_grad_norm_(self.updates.parameters(), CLIP).item()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def _loss(self, part: Part) -> Tensor:
        backbone, engine = self.trainer.model.backbone, self.trainer.model.engine
        rng = torch.Generator().manual_seed(0)
        noised = backbone.noise(part.latents, rng)
        with engine.autocast():
            found = backbone.predict(noised.latents, noised.times, part.text).float()
        if part.medium == "video":
            b, _, _, h, w = found.shape
            found = found + torch.randn(b, 1, 1, h, w, device=found.device)
        return functional.mse_loss(found, noised.target)
