"""The family of shift losses: which axes share the shift, and what it is added to."""

from typing import Literal, get_args

from attrs import field, frozen
from attrs.validators import deep_iterable, ge, in_
from torch import Generator, Tensor

from jtcore import hookimpl
from jtcore.noise import AXES, Axis
from jtcore.types import Noised, Part

from ._shift import draw_shift, squared_error

Shifted = Literal["prediction", "target"]


@frozen
class Shift:
    """Diffusion loss of a randomly shifted prediction or target; some axes share the shift

    |f - y + s|^2 with s ~ N(0, std^2), one draw for all elements along the `shared` axes: the
    channel-temporal shift, `shared = ["channel", "frame"]`, is JointTuner's `ait`; an empty list is
    independent noise, and all four axes one number a sample. On the target the shift is the same in
    distribution as on the prediction. As with `ait`, the expected gradient is that of `diffusion`.
    """

    shared: tuple[Axis, ...] = field(
        default=("channel", "frame"), validator=deep_iterable(in_(AXES))
    )
    std: float = field(default=1.0, validator=ge(0))
    applied_to: Shifted = field(default="prediction", validator=in_(get_args(Shifted)))

    def __call__(
        self, prediction: Tensor, noised: Noised, part: Part, rng: Generator
    ) -> Tensor:  # prediction (B, C, F, H, W) -> (B,)
        shift = draw_shift(noised.target, self.shared, self.std, rng)
        if self.applied_to == "target":
            return squared_error(prediction, noised.target + shift)
        return squared_error(prediction + shift, noised.target)


@hookimpl
def jt_losses() -> dict[str, type]:
    return {"shift": Shift}
