"""diffusers' schedulers behind jtcore's samplers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from attrs import Factory, frozen
from torch import Generator, Tensor

from jtcore.errors import JtError
from jtcore.near import did_you_mean


@frozen
class Kind:
    """A class of diffusers' schedulers, and what is set whatever a checkpoint says"""

    cls: str
    settings: Mapping[str, Any] = Factory(dict)


def sampler(
    scheduler: Any, kinds: Mapping[str, Kind], name: str | None, steps: int, frames_first: bool
) -> StockSampler:
    """A walk of `steps` by the scheduler called `name`, the first of `kinds` unless said.

    It has the noise schedule of `scheduler`, a diffusers one. Raises JtError where no kind has
    that name, or the schedule has fewer steps.
    """
    import diffusers

    name = name or next(iter(kinds))
    if name not in kinds:
        raise JtError(f"unknown scheduler {name!r}; {did_you_mean(name, kinds)}")
    if steps > (most := scheduler.config.num_train_timesteps):
        raise JtError(f"{steps} steps of denoising; the schedule has {most}")
    kind = kinds[name]
    cls = getattr(diffusers, kind.cls)
    own = cls.from_config(understood(scheduler.config, cls), **kind.settings)
    with warnings.catch_warnings():
        # some of diffusers' schedulers have numpy read tensors in a way that numpy 2 deprecates
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        own.set_timesteps(steps)
    if hasattr(own, "set_begin_index"):  # or the first of many steps is looked up by a rounded time
        own.set_begin_index(0)
    walk = DPMSampler if kind.cls == "CogVideoXDPMScheduler" else StockSampler
    return walk(own, frames_first)


def understood(config: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """What a scheduler of `cls` understands of another's `config`; of the rest it would warn."""
    known = signature(cls).parameters
    return {name: value for name, value in config.items() if name in known or name[0] == "_"}


class StockSampler:
    """One of diffusers' schedulers on the way of one video or batch; some keep a state"""

    def __init__(self, scheduler: Any, frames_first: bool):
        self.scheduler = scheduler
        self.frames_first = frames_first  # where diffusers has (B, F, C, H, W)
        self.times: Sequence[Tensor] = tuple(scheduler.timesteps)
        self.draws = "generator" in signature(scheduler.step).parameters

    def start(self, shape: Sequence[int], rng: Generator) -> Tensor:  # (B, C, F, H, W)
        batch, channels, frames, *grid = shape
        shape = (batch, frames, channels, *grid) if self.frames_first else shape
        noise = self._turned(torch.randn(*shape, generator=rng))
        return noise * getattr(self.scheduler, "init_noise_sigma", 1.0)  # a flow's is not told

    def step(
        self, prediction: Tensor, index: int, latents: Tensor, rng: Generator
    ) -> Tensor:  # (B, C, F, H, W), float32
        """The latents after step `index`; a scheduler that draws noise draws it from `rng`."""
        prediction, latents = self._turned(prediction.float()), self._turned(latents)
        return self._turned(self._walk(prediction, index, latents, rng))

    def _walk(self, prediction: Tensor, index: int, latents: Tensor, rng: Generator) -> Tensor:
        options = {"generator": rng} if self.draws else {}
        time = self.times[index]
        return self.scheduler.step(prediction, time, latents, return_dict=False, **options)[0]

    def _turned(self, latents: Tensor) -> Tensor:
        return latents.transpose(1, 2) if self.frames_first else latents


class DPMSampler(StockSampler):
    """CogVideoX's DPM-Solver++ (https://arxiv.org/abs/2211.01095), which looks a step back"""

    clean: Tensor | None = None  # what the step before took the latents to be without noise

    def _walk(self, prediction: Tensor, index: int, latents: Tensor, rng: Generator) -> Tensor:
        before = self.times[index - 1] if index else None
        latents, self.clean = self.scheduler.step(
            prediction, self.clean, self.times[index], before, latents, generator=rng
        )
        return latents
