"""What JointTuner's loss means to do, done to the expected gradient: by a likelihood."""

from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Generator, Tensor

from jtcore import hookimpl
from jtcore.types import Noised, Part

from ._shift import squared_error, still_part


@frozen
class AiTMarginal:
    """Squared error that makes little of what all channels and frames have in common

    Were r = f - y noise of variance rho^2 plus a shift s ~ N(0, sigma^2) that channels and frames
    share, then with s integrated out -log p(r) is, but for a factor and a constant,

        [ |(I - P) r|^2 + rho^2 / (rho^2 + sigma^2 C F) |P r|^2 ] / N

    where P averages over channels and frames. Unlike `ait`, it changes the expected gradient. With
    `std` = 0 it is `diffusion`, with a large one `ait_project`.
    """

    std: float = field(default=1.0, validator=ge(0))  # sigma
    residual_std: float = field(default=0.5, validator=gt(0))  # rho

    def __call__(
        self, prediction: Tensor, noised: Noised, part: Part, rng: Generator
    ) -> Tensor:  # prediction (B, C, F, H, W) -> (B,)
        error = prediction - noised.target
        still = still_part(error)
        channels, frames = error.shape[1:3]
        own, shared = self.residual_std**2, self.std**2 * channels * frames
        left = own / (own + shared)
        return squared_error(error, still) + left * still.square().flatten(1).mean(1)


@hookimpl
def jt_losses() -> dict[str, type]:
    return {"ait_marginal": AiTMarginal}
