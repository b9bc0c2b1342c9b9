"""The plain diffusion loss."""

from typing import Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import in_
from torch import Generator, Tensor

from jtcore import JtError, hookimpl
from jtcore.types import Noised, Part

from ._shift import squared_error

Masked = Literal["none", "mean", "area"]


@frozen
class Diffusion:
    """Squared error in the network's own parametrisation: noise, velocity or flow

    CogVideoX's released loss, (x0_hat - x0)^2 / (1 - alpha_bar), equals it for its v-prediction.
    `masked` counts the error r only where a mask m says the subject is: "mean" averages (m r)^2
    over all elements as DreamVideo does, so that a small subject weighs little; "area" divides the
    sum of (m r)^2 by that of m^2, so that a constant error costs the same whatever the mask.
    Raises JtError where a mask is asked for and the data have none.
    """

    masked: Masked = field(default="none", validator=in_(get_args(Masked)))

    @property
    def needs_mask(self) -> bool:
        return self.masked != "none"

    def __call__(
        self, prediction: Tensor, noised: Noised, part: Part, rng: Generator
    ) -> Tensor:  # prediction (B, C, F, H, W) -> (B,)
        if self.masked == "none":
            return squared_error(prediction, noised.target)
        mask = self._mask(part).to(noised.target)
        error = squared_error(mask * prediction, mask * noised.target)
        if self.masked == "mean":
            return error
        area = mask.square().flatten(1).mean(1)
        return error / area.clamp(min=torch.finfo(area.dtype).tiny)  # an empty mask costs nothing

    def _mask(self, part: Part) -> Tensor:  # (B, 1, F, H, W)
        if part.mask is None:
            raise JtError(
                f"data.{part.stream}: has no masks, but a diffusion loss with masked ="
                f" {self.masked!r} is asked of it; give it masks, or set masked = 'none'"
            )
        return part.mask


@hookimpl
def jt_losses() -> dict[str, type]:
    return {"diffusion": Diffusion}
