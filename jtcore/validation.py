"""Validation: the diffusion loss on held-out files with fixed noise, adapters off and on.

The training loss of a diffusion model says little: it moves with each draw of noise and time.
On the same draws, the difference between base and adapted model does tell what was learned.
"""

from collections.abc import Mapping

import torch

from jtcore.adapter import switched_on
from jtcore.model import Model
from jtcore.recipe import Validation
from jtcore.rng import generator
from jtcore.stream import Stream
from jtcore.types import Part


def validate(
    settings: Validation, model: Model, scales: Mapping[str, float], streams: Mapping[str, Stream]
) -> dict[str, dict[str, float]]:
    """By stream: mean loss of `base` and `adapted`, and the mean `change` with its standard error
    over files.

    The loss is the mean squared error in the network's own parametrisation. The same times and
    noise are drawn for every file and for both models. Adapters are on at `scales`.
    """
    return {name: _losses(streams[name], settings, model, scales) for name in settings.data}


def _losses(
    stream: Stream, settings: Validation, model: Model, scales: Mapping[str, float]
) -> dict[str, float]:
    parts = [stream.single(item, model.texts) for item in range(len(stream))]
    draws = range(settings.draws)
    pairs = torch.tensor(
        [[_pair(part, model, scales, (settings.seed, draw)) for draw in draws] for part in parts],
        dtype=torch.float64,
    ).mean(1)  # (files, 2): draws of one file are not independent of each other
    change = pairs[:, 1] - pairs[:, 0]
    error = change.std() / len(change) ** 0.5 if len(change) > 1 else torch.tensor(0.0)
    return {
        "base": float(pairs[:, 0].mean()),
        "adapted": float(pairs[:, 1].mean()),
        "change": float(change.mean()),
        "change_standard_error": float(error),
    }


@torch.no_grad()
def _pair(
    part: Part, model: Model, scales: Mapping[str, float], seed: tuple[int, ...]
) -> tuple[float, float]:
    """The loss of one draw with adapters off, and on."""
    noised = model.backbone.noise(part.latents, generator(*seed, "validation", part.stream))
    losses = []
    for on in ({}, scales):
        with switched_on(model.scaled(on), len(part.prompts)), model.engine.autocast():
            prediction = model.backbone.predict(noised.latents, noised.times, part.text)
        losses.append(float((prediction.float() - noised.target).square().mean()))
    return losses[0], losses[1]
