"""MotionDirector's loss for whole clips."""

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Generator, Tensor

from jtcore import hookimpl
from jtcore.types import Noised, Part


@frozen
class Debiased:
    """Squared error of frames against one of them: what is alike in all counts less

    |phi(f) - phi(y)|^2 with phi(e)_k = sqrt(beta^2 + 1) e_k - beta e_a for each frame k, where a is
    an anchor drawn from the frames of each sample (https://arxiv.org/abs/2310.08465). With beta = 1
    an error that is the same in all frames counts (sqrt(2) - 1)^2 = 0.17 times; of one that is
    independent in each, 3 times in all frames but the anchor, and there 0.17 times again.
    MotionDirector adds it to `diffusion` with the same weight.
    """

    beta: float = field(default=1.0, validator=ge(0))

    def __call__(
        self, prediction: Tensor, noised: Noised, part: Part, rng: Generator
    ) -> Tensor:  # prediction (B, C, F, H, W) -> (B,)
        error = prediction - noised.target  # of which phi is the difference of both, being linear
        anchors = torch.randint(error.shape[2], (len(error),), generator=rng).tolist()
        anchor = torch.stack([error[sample, :, [a]] for sample, a in enumerate(anchors)])
        debiased = (self.beta**2 + 1) ** 0.5 * error - self.beta * anchor
        return debiased.square().flatten(1).mean(1)


@hookimpl
def jt_losses() -> dict[str, type]:
    return {"debiased": Debiased}
