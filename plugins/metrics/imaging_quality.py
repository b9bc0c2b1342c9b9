"""How good frames look as pictures, by a network that was trained on people's opinions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen
from attrs.validators import ge

from jtcore import hookimpl
from jtcore.errors import JtError
from jtcore.evaluation.identity import file_digest
from jtcore.types import Metric, Sample

from ._frames import OfFrames
from ._published import Published, load_frozen, raise_unless_alike, read_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ._musiq import MUSIQ

LONGEST = 512  # px, of the longer side of what the network sees
FILE = Published("musiq_spaq_ckpt-358bb6af.pth", hub="chaofengc/IQA-PyTorch-Weights")


@frozen
class ImagingQuality(OfFrames):
    """VBench's imaging quality: MUSIQ's opinion of each frame, a mean over frames, / 100

    MUSIQ (https://arxiv.org/abs/2108.05997) with the weights that pyiqa publishes of SPAQ
    (photographs of phones), about 0 to 1. Frames whose longer side is above 512 px are scaled to
    it, bilinear and not antialiased. It hears of blur, noise, and bad exposure, and nothing of
    motion or of what is shown.

    `model` is the file, a folder with it, or a hub id. `batch` is how many frames go through the
    network at once; `frames` is "all" or how many per second.
    """

    model: str = FILE.hub
    batch: int = field(default=4, validator=ge(1))

    better: ClassVar[str] = "higher"

    def problems(self) -> list[str]:
        try:
            if path := FILE.there(self.model):
                tensors = read_tensors(path, "meta")
                raise_unless_alike(_network(tensors), tensors, path)
        except JtError as error:
            return list(error.problems)
        return []

    def files(self) -> list[Path]:
        return [FILE.find(self.model)]

    def identity(self) -> dict[str, Any]:
        return {
            "network": "MUSIQ",
            "weights": file_digest(FILE.find(self.model)),
            "longer side": f"at most {LONGEST} px, bilinear, not antialiased",
            "frames": self.sampling(),
        }

    def load(self, device: torch.device) -> Metric:
        path = FILE.find(self.model)
        tensors = read_tensors(path)
        network = load_frozen(_network(tensors), tensors, path, device)

        def measure(sample: Sample) -> Mapping[str, float]:
            return {"imaging_quality": self._quality(sample, network, device)}

        return measure

    def _quality(
        self, sample: Sample, network: Callable[[Tensor], Tensor], device: torch.device
    ) -> float:
        import torch

        frames, scores = self.shown(sample), []
        with torch.inference_mode():
            for start in range(0, len(frames), self.batch):
                pictures = torch.stack(frames[start : start + self.batch]).to(device)
                scores.append(network(shrunk(pictures.float()) / 255))
        return torch.cat(scores).double().mean().item() / 100


def shrunk(pictures: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 3, h, w)
    """With a longer side of at most 512 px: sides are rounded down, as VBench does."""
    from torch.nn.functional import interpolate

    height, width = pictures.shape[2:]
    scale = LONGEST / max(height, width)
    if scale >= 1:
        return pictures
    size = max(int(scale * height), 1), max(int(scale * width), 1)
    return interpolate(pictures, size, mode="bilinear", align_corners=False)


def _network(tensors: Mapping[str, Tensor]) -> MUSIQ:
    """Of the sizes of a file, on the meta device."""
    import torch

    from ._musiq import MUSIQ, sizes_of

    with torch.device("meta"):
        return MUSIQ(sizes_of(tensors))


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"imaging_quality": ImagingQuality}
