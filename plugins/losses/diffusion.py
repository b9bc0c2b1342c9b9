"""The plain diffusion loss."""

from typing import Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import in_
from torch import Generator, Tensor

from jtcore import JtError, hookimpl
from jtcore.types import Noised, Part

Masked = Literal["none", "mean", "area", "pixels"]
Norm = Literal["l1", "l2"]


@frozen
class Diffusion:
    """Error in the network's own parametrisation, noise, velocity or flow: squared, or absolute

    CogVideoX's released loss, (x0_hat - x0)^2 / (1 - alpha_bar), equals it for its v-prediction.
    `norm` is "l2" for r^2, "l1" for |r|. `masked` counts the error r only where a mask m says the
    subject is: "mean" averages (m r)^2 over all elements as DreamVideo does, so that a small
    subject weighs little; "area" divides the sum of (m r)^2 by that of m^2, of |m r| by that of m
    as CustomCrafter does, so that a constant error costs the same whatever the mask; "pixels" is
    as MotionBooth was released: m is 1 wherever it is above 0, and the sum over channels too is
    divided by the number of such pixels, so that it is as many times larger as there are channels.
    Raises JtError where a mask is asked for and the data have none.
    """

    masked: Masked = field(default="none", validator=in_(get_args(Masked)))
    norm: Norm = field(default="l2", validator=in_(get_args(Norm)))

    @property
    def needs_mask(self) -> bool:
        return self.masked != "none"

    def __call__(
        self, prediction: Tensor, noised: Noised, part: Part, rng: Generator
    ) -> Tensor:  # prediction (B, C, F, H, W) -> (B,)
        if self.masked == "none":
            return self._mean(prediction - noised.target)
        mask = self._mask(part).to(noised.target)
        if self.masked == "pixels":
            mask = (mask > 0).to(mask)
        error = self._mean(mask * prediction - mask * noised.target)
        if self.masked == "mean":
            return error
        area = self._mean(mask)
        average = error / area.clamp(min=torch.finfo(area.dtype).tiny)  # no mask costs nothing
        return average * prediction.shape[1] if self.masked == "pixels" else average

    def _mean(self, error: Tensor) -> Tensor:  # (B, ...) -> (B,)
        size = error.square() if self.norm == "l2" else error.abs()
        return size.flatten(1).mean(1)

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
