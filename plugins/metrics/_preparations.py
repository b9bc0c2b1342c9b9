"""What is done to a picture before a network sees it, by each paper's code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import interpolate

from ..backbones._networks import quiet
from ._checkpoints import Checkpoint

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

Filter = Literal["bilinear", "bicubic"]
Numbers = tuple[float, float, float]

CLIP_MEAN: Numbers = (0.48145466, 0.4578275, 0.40821073)  # of what CLIP was trained on
CLIP_DEVIATION: Numbers = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Numbers = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION: Numbers = (0.229, 0.224, 0.225)
TOLD = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale")
TOLD += ("rescale_factor", "do_normalize", "image_mean", "image_std")


class Preparation(Protocol):
    def __call__(self, pictures: Sequence[Tensor]) -> Tensor:
        """uint8 (3, H, W) each, of any sizes that end up alike -> (B, 3, height, width)"""

    def identity(self) -> dict[str, Any]:
        """All its numbers, as JSON has them."""


@frozen(eq=False)
class OfCheckpoint:
    """What transformers' own processor of a checkpoint does, with Pillow: in whole pixel values"""

    processor: BaseImageProcessor

    def __call__(self, pictures: Sequence[Tensor]) -> Tensor:
        arrays = [picture.permute(1, 2, 0).numpy() for picture in pictures]
        shown = self.processor(arrays, input_data_format="channels_last", return_tensors="pt")
        return shown["pixel_values"].float()

    def identity(self) -> dict[str, Any]:
        told = self.processor.to_dict()
        kind = told.get("image_processor_type", type(self.processor).__name__)
        numbers = {key: told[key] for key in TOLD if told.get(key) is not None}
        return {"by": "transformers, pil", "processor": kind} | numbers


def of_checkpoint(checkpoint: Checkpoint) -> OfCheckpoint:
    """By its preprocessor_config.json. Raises JtError."""
    from transformers import AutoImageProcessor

    try:
        with quiet():
            processor = AutoImageProcessor.from_pretrained(
                checkpoint.root(), backend="pil", local_files_only=True
            )
    except (OSError, ValueError, TypeError, KeyError) as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise checkpoint.problem(f"has no usable preprocessor_config.json: {told[0]}") from error
    return OfCheckpoint(processor)


@frozen
class OfTorchvision:
    """Scaled until the shorter side has `shorter` pixels, the centre of `crop` cut out

    As torchvision's transforms do: on pictures with Pillow, antialiased, in whole pixel values; on
    tensors of `floats` neither, and what bicubic overshoots stays.
    """

    shorter: int
    crop: int | None  # None: nothing is cut off, pictures keep their shape
    filter: Filter
    floats: bool
    mean: Numbers
    deviation: Numbers

    def __call__(self, pictures: Sequence[Tensor]) -> Tensor:
        shown = torch.stack([self._cut(self._scaled(picture)) for picture in pictures]) / 255
        mean, deviation = (shown.new_tensor(n).view(3, 1, 1) for n in (self.mean, self.deviation))
        return (shown - mean) / deviation

    def identity(self) -> dict[str, Any]:
        return {
            "by": "torchvision's formulas" + (" on float32 tensors" if self.floats else ", pil"),
            "shorter": self.shorter,
            "crop": self.crop,
            "filter": self.filter,
            "antialias": not self.floats,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
        }

    def _scaled(self, picture: Tensor) -> Tensor:  # uint8 (3, H, W) -> (3, h, w) in [0, 255]
        height, width = picture.shape[1:]
        size = [int(self.shorter * side / min(height, width)) for side in (height, width)]
        if self.floats:
            return interpolate(picture[None].float(), size, mode=self.filter)[0]
        return _with_pillow(picture, size, self.filter)

    def _cut(self, picture: Tensor) -> Tensor:  # (3, h, w) -> (3, crop, crop)
        if self.crop is None:
            return picture
        top, left = (round((side - self.crop) / 2) for side in picture.shape[1:])
        return picture[:, top : top + self.crop, left : left + self.crop]


def _with_pillow(picture: Tensor, size: Sequence[int], name: Filter) -> Tensor:
    import numpy as np
    from PIL import Image

    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    scaled = image.resize((size[1], size[0]), Image.Resampling[name.upper()])
    return torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float()


def openai(side: int) -> OfTorchvision:
    """As CLIP's own package prepares a picture (https://github.com/openai/CLIP)."""
    return OfTorchvision(side, side, "bicubic", False, CLIP_MEAN, CLIP_DEVIATION)


def vbench_clip(side: int) -> OfTorchvision:
    """As VBench prepares frames for CLIP (https://github.com/Vchitect/VBench)."""
    return OfTorchvision(side, side, "bicubic", True, CLIP_MEAN, CLIP_DEVIATION)


def vbench_dino(side: int) -> OfTorchvision:
    """As VBench prepares frames for DINO: not cut, so that it sees other shapes than squares."""
    return OfTorchvision(side, None, "bilinear", True, IMAGENET_MEAN, IMAGENET_DEVIATION)


def dreamvideo(side: int) -> OfTorchvision:
    """As DreamVideo prepares pictures for DINO: 256 px, of which 224 are cut out."""
    shorter = round(side * 256 / 224)
    return OfTorchvision(shorter, side, "bicubic", False, IMAGENET_MEAN, IMAGENET_DEVIATION)
