"""CLIP's image encoder (https://arxiv.org/abs/2103.00020), over transformers' class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import interpolate

from jtcore import JtError, hookimpl

from ..backbones._hub import HUB_ID, Folder, Repository
from ..backbones._networks import freeze, quiet
from ..backbones._weight_files import digest

if TYPE_CHECKING:  # importing transformers costs seconds
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of what CLIP was trained on
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@frozen
class CLIP:
    """CLIP's projected image embedding, such as ViT-H/14's 1024 numbers

    A picture's shorter side is scaled to the network's (224 px), bicubic and antialiased, its
    centre is cut out, and CLIP's own mean and deviation are taken out: alike for training and
    sampling. `weights` is a folder or a hub id with `config.json` and `model.safetensors`, of the
    image encoder or of a whole CLIP.
    """

    weights: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    revision: str | None = None

    def width(self) -> int:
        return self._config().projection_dim

    def identity(self) -> str:
        root = self._root(CONFIG, WEIGHTS)
        files = {name: root / name for name in (CONFIG, WEIGHTS)}
        return digest({**files, "code": Path(__file__)})

    def load(self, device: torch.device) -> CLIPImages:
        from transformers import CLIPVisionModelWithProjection

        root = self._root(CONFIG, WEIGHTS)
        try:
            with quiet():
                network, info = CLIPVisionModelWithProjection.from_pretrained(
                    root, config=self._config(), dtype=torch.float32, output_loading_info=True
                )
        except (OSError, ValueError, RuntimeError) as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise self._problem(f"cannot be loaded: {told[0]}") from error
        if lacking := sorted(info["missing_keys"]):
            raise self._problem(f"has no weights for {lacking[0]}")
        return CLIPImages(freeze(network, device))

    def _config(self) -> CLIPVisionConfig:
        from transformers import CLIPVisionConfig

        path = self._root(CONFIG) / CONFIG
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            vision = told.get("vision_config", told)
            whole = {"projection_dim": told["projection_dim"]} if "projection_dim" in told else {}
        except (OSError, ValueError, AttributeError) as error:
            raise self._problem(f"has no readable {CONFIG}: {error}") from error
        if "clip" not in (kind := told.get("model_type", "model without a type")):
            raise self._problem(f"is a {kind}, not a CLIP")
        return CLIPVisionConfig.from_dict({**vision, **whole})

    def _root(self, *names: str) -> Path:
        """The folder, with these files in it. Raises JtError."""
        folder = Path(self.weights).expanduser()
        if not folder.is_dir() and not HUB_ID.fullmatch(self.weights):
            raise self._problem('is no folder; expected one, or a hub id such as "owner/name"')
        source = Folder(folder) if folder.is_dir() else Repository(self.weights, self.revision)
        try:
            root = source.root(list(names))
        except ValueError as error:
            raise self._problem(str(error)) from error
        if lacking := [name for name in names if not (root / name).is_file()]:
            raise self._problem(f"has no {lacking[0]}")
        return root

    def _problem(self, text: str) -> JtError:
        return JtError(f"weights: {self.weights!r} {text}")


@frozen(eq=False)
class CLIPImages:
    """A vision transformer with its projection, in float32"""

    network: CLIPVisionModelWithProjection

    @torch.no_grad()
    def embed(self, pictures: Tensor) -> Tensor:  # (B, 3, height, width) in [0, 1] -> (B, E)
        side = self.network.config.image_size
        return self.network(prepared(pictures, side)).image_embeds


def prepared(pictures: Tensor, side: int) -> Tensor:  # (B, 3, H, W) in [0, 1] -> (B, 3, side, side)
    """As CLIP was trained: what `CLIPImageProcessor` makes of the same pictures, but for rounding
    to whole pixel values in between."""
    height, width = pictures.shape[2:]
    shorter = min(height, width)
    size = side * height // shorter, side * width // shorter
    scaled = interpolate(pictures, size, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    cut = scaled[:, :, top : top + side, left : left + side]
    mean, deviation = (cut.new_tensor(each).view(1, 3, 1, 1) for each in (MEAN, DEVIATION))
    return (cut - mean) / deviation


@hookimpl
def jt_image_encoders() -> dict[str, type]:
    return {"clip": CLIP}
