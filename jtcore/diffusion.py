"""Noise levels, and what networks answer there: noise, velocity or flow.

At a level, latents are x = signal * clean + sigma * noise.
"""

from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from jtcore.types import Noised

Prediction = Literal["epsilon", "v", "flow"]


@frozen(eq=False)
class Levels:
    """How much of clean latents and of noise is left, for each sample"""

    signal: Tensor  # (B,), float64
    sigma: Tensor  # (B,), float64

    @property
    def log_snr(self) -> Tensor:  # (B,), -inf where nothing but noise is left
        """log(signal^2 / sigma^2), in which schedules can be compared."""
        return 2 * (self.signal.log() - self.sigma.log())

    def over(self, latents: Tensor) -> tuple[Tensor, Tensor]:  # each (B, 1, 1, 1, 1)
        """Signal and sigma to multiply `latents` (B, C, F, H, W) by."""
        shape = (-1, *[1] * (latents.ndim - 1))
        return tuple(part.view(shape).to(latents) for part in (self.signal, self.sigma))


def noised(
    prediction: Prediction, clean: Tensor, noise: Tensor, times: Tensor, levels: Levels
) -> Noised:  # clean and noise (B, C, F, H, W), times (B,)
    """Latents at `levels`, and what a network of that kind of `prediction` is trained to answer."""
    signal, sigma = levels.over(noise)
    targets = {
        "epsilon": lambda: noise,
        "v": lambda: signal * noise - sigma * clean,  # (https://arxiv.org/abs/2202.00512)
        "flow": lambda: noise - clean,  # (https://arxiv.org/abs/2209.03003), backwards in time
    }
    return Noised(signal * clean + sigma * noise, times, targets[prediction]())


def separate(
    prediction: Prediction, answer: Tensor, latents: Tensor, levels: Levels
) -> tuple[Tensor, Tensor]:  # all (B, C, F, H, W)
    """The clean latents and the noise that an `answer` at `levels` takes `latents` to be made of.

    An answer of "epsilon" says nothing of clean latents where there is no signal: they are not
    finite there.
    """
    signal, sigma = levels.over(latents)
    if prediction == "epsilon":
        return (latents - sigma * answer) / signal, answer
    if prediction == "v":
        return signal * latents - sigma * answer, sigma * latents + signal * answer
    assert torch.allclose(signal + sigma, torch.ones_like(signal)), "a flow is a straight line"
    return latents - sigma * answer, latents + signal * answer
