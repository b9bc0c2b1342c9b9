"""JointTuner's loss for videos."""

from attrs import field, frozen
from attrs.validators import ge
from torch import Generator, Tensor

from jtcore import hookimpl
from jtcore.types import Noised, Part

from ._shift import draw_shift, squared_error


@frozen
class AiT:
    """Appearance-independent temporal loss: the prediction shifted alike in all channels and frames

    |f + s - y|^2 with one random map s (H, W) a sample (https://arxiv.org/abs/2503.23951), released
    with std = 1, and weight = 10 on the UNets, 1 on CogVideoX.

    To the expected gradient it does nothing: s is independent of all else and enters linearly, so
    E[gradient] is exactly that of `diffusion`, and E[loss] is larger by std^2. What s adds is noise
    of covariance 4 std^2 C F / N^2 * J^T P J, where N = C F H W, J is the prediction's Jacobian and
    P averages over channels and frames. It acts through the optimizer alone: Adam's second moment
    slows, and norm clipping shrinks, what moves the still, channel-mean part of the prediction.
    Larger batches, gradient accumulation or plain SGD weaken it.
    """

    std: float = field(default=1.0, validator=ge(0))

    def __call__(
        self, prediction: Tensor, noised: Noised, part: Part, rng: Generator
    ) -> Tensor:  # prediction (B, C, F, H, W) -> (B,)
        shift = draw_shift(noised.target, ("channel", "frame"), self.std, rng)
        return squared_error(prediction + shift, noised.target)


@hookimpl
def jt_losses() -> dict[str, type]:
    return {"ait": AiT}
