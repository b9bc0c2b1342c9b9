"""diffusers' own pipelines of tiny checkpoints."""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from diffusers import DiffusionPipeline
from torch import Tensor, nn

SIZE = {"height": 32, "width": 48, "num_inference_steps": 1, "output_type": "latent"}


@frozen(eq=False)
class Stock:
    """A tiny checkpoint, diffusers' own pipeline of it, and how to call that"""

    kind: str
    folder: Path
    pipeline: type
    options: Mapping[str, Any]

    @property
    def backbone(self) -> dict[str, str]:
        return {"kind": self.kind, "weights": str(self.folder)}

    def load(self) -> DiffusionPipeline:
        """One with a denoiser of its own."""
        return own_pipeline(self.pipeline, self.folder)

    def sample(self, pipe: DiffusionPipeline) -> Tensor:
        rng = torch.Generator().manual_seed(3)
        return pipe("a dog", generator=rng, **SIZE, **self.options).frames


def own_pipeline(pipeline: type, folder: Path) -> DiffusionPipeline:
    """One of the class `pipeline`, with a denoiser of its own."""
    parts = _loaded(pipeline, folder).components
    name = "unet" if "unet" in parts else "transformer"
    pipe = pipeline(**{**parts, name: deepcopy(parts[name])})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def denoiser(pipe: DiffusionPipeline) -> nn.Module:
    return getattr(pipe, "transformer", None) or pipe.unet


@cache
def _loaded(pipeline: type, folder: Path) -> DiffusionPipeline:
    pipe = pipeline.from_pretrained(folder)
    denoiser(pipe).requires_grad_(False)  # some sum otherwise where weights require any
    return pipe


def assert_same(found: Tensor, expected: Tensor, bare: Tensor) -> None:
    """As near as another order of the same sums comes, beside what adapters change of `bare`."""
    change = (expected - bare).norm()
    assert change > 1e-3 * bare.norm()
    assert (found - expected).norm() < 1e-3 * change


def weights(stock: Stock) -> tuple[str, str]:
    """Of a command that is to have its checkpoint."""
    return "--set", f"backbone.weights={stock.folder}"
