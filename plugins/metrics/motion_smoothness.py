"""Whether every other frame is what its neighbours let one expect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attrs import field, frozen
from attrs.validators import ge

from jtcore import hookimpl
from jtcore.errors import JtError
from jtcore.evaluation.identity import file_digest
from jtcore.types import Metric, Sample

from ._frames import Compat, OfFrames
from ._published import Published, load_frozen, raise_unless_alike, read_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ._amt import AMTS

    Interpolation = Callable[[Tensor, Tensor], Tensor]  # (B, 3, H, W) twice -> (B, 3, H, W)

FILE = Published("amt-s.pth", hub="lalala125/AMT")


@frozen
class MotionSmoothness(OfFrames):
    """VBench's motion smoothness: 1 less the mean error of odd frames drawn from even ones

    Frames 0, 2, 4, ... stay; each one between two of them is drawn halfway and compared with what
    was there: 1 - mean of |difference| over pixels, colours in [0, 1], and frames. Its value is
    called by how frames are drawn, for the two are not comparable:

    `interpolation = "dis"` gives `motion_smoothness_dis`: OpenCV's DIS flow both ways, halved as
    in Super SloMo (https://arxiv.org/abs/1712.00080, equation 4), and the mean of both frames seen
    along it. It needs no weights.

    `interpolation = "amt"` gives `motion_smoothness_amt`, the number of VBench: AMT-S
    (https://arxiv.org/abs/2304.09790) at the frames' own size, on any machine. `model` is the
    file `amt-s.pth`, a folder with it, or a hub id. `compat = "jointtuner"` cuts what is drawn to
    whole pixel values as VBench does, never up: it is darker by half of 1/255 on the
    average, and the number moves by at most 1/255, up or down.

    A still video is perfectly smooth: read it beside a metric of motion. `batch` is how many frames
    are drawn at once; `frames` is "all" or how many per second. Less than three have no value.
    """

    interpolation: Literal["dis", "amt"] = "dis"
    model: str | None = None
    compat: Compat = None
    batch: int = field(default=4, validator=ge(1))

    better: ClassVar[str] = "higher"

    def __attrs_post_init__(self) -> None:
        for name in ("model", "compat"):
            if self.interpolation == "dis" and getattr(self, name) is not None:
                raise ValueError(f'expected {name} only with interpolation = "amt"')

    def problems(self) -> list[str]:
        if self.interpolation == "dis":
            return []
        try:
            if path := FILE.there(self.model or FILE.hub):
                raise_unless_alike(_network(), read_tensors(path, "meta"), path)
        except JtError as error:
            return list(error.problems)
        return []

    def files(self) -> list[Path]:
        return [] if self.interpolation == "dis" else [self._path()]

    def identity(self) -> dict[str, Any]:
        from ._opencv import dis_identity

        if self.interpolation == "dis":
            drawn = {"flow": dis_identity()}
        else:
            drawn = {"network": "AMT-S", "weights": file_digest(self._path()), "scale": 1}
        return {**drawn, "frames": self.sampling()}

    def load(self, device: torch.device) -> Metric:
        draw = self._interpolation(device)

        def measure(sample: Sample) -> Mapping[str, float]:
            value = self._smoothness(sample, draw, device)
            return {} if value is None else {f"motion_smoothness_{self.interpolation}": value}

        return measure

    def _smoothness(
        self, sample: Sample, draw: Interpolation, device: torch.device
    ) -> float | None:
        import torch

        frames, errors = self.shown(sample), []
        kept = frames[::2]
        drawable = range(len(kept) - 1)  # of an even number of frames the last has one neighbour
        with torch.inference_mode():
            for start in range(0, len(drawable), self.batch):
                some = drawable[start : start + self.batch]
                before, after, truth = (
                    torch.stack([frames[2 * index + step] for index in some]).to(device) / 255
                    for step in (0, 2, 1)
                )
                drawn = draw(before, after)
                if self.compat:
                    drawn = (drawn * 255).floor() / 255
                errors.append((drawn - truth).abs().double().mean((1, 2, 3)))
        return 1 - torch.cat(errors).mean().item() if errors else None

    def _interpolation(self, device: torch.device) -> Interpolation:
        if self.interpolation == "dis":
            return halfway_by_flow
        path = self._path()
        return load_frozen(_network(), read_tensors(path), path, device)

    def _path(self) -> Path:
        return FILE.find(self.model or FILE.hub)


def halfway_by_flow(before: Tensor, after: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] each -> (B, 3, H, W), the mean of both frames seen along half of the
    flow between them."""
    import torch

    from ._correlation import warped
    from ._opencv import DIS

    there, back = [], []
    for one, other in zip(before.cpu(), after.cpu(), strict=True):
        ahead, behind = DIS()(torch.stack([one, other, one], 1))
        there.append(ahead)
        back.append(behind)
    half = ((torch.stack(there) - torch.stack(back)) / 4).to(before)
    return (warped(before, -half) + warped(after, half)) / 2


def _network() -> AMTS:
    """On the meta device."""
    import torch

    from ._amt import AMTS

    with torch.device("meta"):
        return AMTS()


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"motion_smoothness": MotionSmoothness}
