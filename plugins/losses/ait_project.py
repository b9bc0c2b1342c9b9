"""What JointTuner's loss means to do, done to the expected gradient: by a projection."""

from attrs import frozen
from torch import Generator, Tensor

from jtcore import hookimpl
from jtcore.types import Noised, Part

from ._shift import squared_error, still_part


@frozen
class AiTProject:
    """Squared error without what all channels and frames have in common

    |(I - P) r|^2 / N, where r = f - y and P averages over channels and frames: the limit of
    `ait_marginal` for shifts without bound. Unlike `ait`, it changes the expected gradient: nothing
    teaches the still, channel-mean part of the prediction, a 1 / (C F) of its dimensions.
    """

    def __call__(
        self, prediction: Tensor, noised: Noised, part: Part, rng: Generator
    ) -> Tensor:  # prediction (B, C, F, H, W) -> (B,)
        error = prediction - noised.target
        return squared_error(error, still_part(error))


@hookimpl
def jt_losses() -> dict[str, type]:
    return {"ait_project": AiTProject}
