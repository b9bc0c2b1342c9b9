"""How beautiful frames are to LAION's predictor, by VBench's definition."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor

from jtcore import JtError, hookimpl
from jtcore.types import Metric, Sample

from . import _clip
from ._checkpoints import Checkpoint
from ._frames import OfFrames
from ._preparations import Preparation, vbench_clip

HEAD = "sa_0_4_vit_l_14_linear.pth"
SOURCE = f"https://github.com/LAION-AI/aesthetic-predictor/raw/main/{HEAD}"


@frozen
class AestheticQuality(OfFrames):
    """VBench's aesthetic quality: LAION's rating of 0 to 10 over 10, mean over frames

    The linear `head` on the normalised embedding of CLIP ViT-L/14; not bounded, in practice within
    [0, 1]. Frames are scaled to a shorter side of 224 px, bicubic, without antialiasing, and their
    centre is cut out, as VBench does. `model` is a folder or a hub id, `head` the file that LAION
    publishes, unless said where VBench keeps it; `batch` frames go through at once; `frames` is
    "all", or a rate in 1/s. Rates each frame as a picture: blind to motion and to the prompt.
    """

    better: ClassVar[str] = "higher"

    model: str = "openai/clip-vit-large-patch14"
    head: str = f"~/.cache/vbench/aesthetic_model/emb_reader/{HEAD}"

    def problems(self) -> list[str]:
        found = self._checkpoint.problems()
        if not (path := self._head).is_file():
            found.append(f"head: {str(path)!r} is no file; get it by `curl -LO {SOURCE}`")
        return found

    def files(self) -> list[Path]:
        return [self._head]

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": self._checkpoint.identity(),
            "preparation": self._preparation().identity(),
            "frames": self.sampling(),
        }

    def load(self, device: torch.device) -> Metric:
        network = self._checkpoint.load("CLIPModel", device)
        looking = _clip.look(network, self._preparation(), self.batch)
        weight, bias = read_head(self._head, network.config.projection_dim)

        def measure(sample: Sample) -> Mapping[str, float]:
            ratings = looking.embed(self.shown(sample)) @ weight + bias  # (F,)
            return {"aesthetic_quality": ratings.mean().item() / 10}

        return measure

    @property
    def _checkpoint(self) -> Checkpoint:
        return _clip.bare(self.model)

    @property
    def _head(self) -> Path:
        return Path(self.head).expanduser()

    def _preparation(self) -> Preparation:
        return vbench_clip(_clip.side(self._checkpoint))


def read_head(path: Path, width: int) -> tuple[Tensor, Tensor]:  # (width,), (1,), float64
    """The weight and the bias. Raises JtError."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        weight, bias = held["weight"], held["bias"]
        shapes = tuple(weight.shape), tuple(bias.shape)
    except (OSError, RuntimeError, EOFError, UnpicklingError, *_NO_TENSORS) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JtError(f"head: {str(path)!r} cannot be read: {told}") from error
    if shapes != ((1, width), (1,)):
        raise JtError(
            f"head: {str(path)!r} has weights of {shapes[0]} and {shapes[1]}, expected"
            f" {(1, width)} and (1,), of this CLIP"
        )
    return weight[0].double(), bias.double()


_NO_TENSORS = (AttributeError, KeyError, TypeError)  # what a file of something else lacks


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"aesthetic_quality": AestheticQuality}
