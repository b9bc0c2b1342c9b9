"""diffusers' own pipelines of tiny checkpoints."""

from copy import deepcopy
from functools import cache
from pathlib import Path

from diffusers import DiffusionPipeline
from torch import nn


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
