"""Validation: the diffusion loss on held-out files with fixed noise, adapters off and on.

The training loss of a diffusion model says little: it moves with each draw of noise and time.
On the same draws, the difference between base and adapted model does tell what was learned.
"""

from collections.abc import Mapping
from itertools import product
from statistics import fmean
from typing import Any

import torch

from jtcore.adapter import switched_on, told
from jtcore.model import Model
from jtcore.recipe import Validation
from jtcore.references import shown
from jtcore.rng import generator
from jtcore.stream import Stream
from jtcore.types import Part


def validate(
    settings: Validation, model: Model, scales: Mapping[str, float], streams: Mapping[str, Stream]
) -> dict[str, dict[str, Any]]:
    """By stream: mean loss of `base` and `adapted`, and the mean `change` with its standard error
    over files; and means of what `adapters` say of these passes.

    The loss is the mean squared error in the network's own parametrisation. The same times and
    noise are drawn for every file and for both models. Adapters are on at `scales`.
    """
    return {name: _summary(streams[name], settings, model, scales) for name in settings.data}


def _summary(
    stream: Stream, settings: Validation, model: Model, scales: Mapping[str, float]
) -> dict[str, Any]:
    parts = [stream.single(item, model.texts) for item in range(len(stream))]
    pairs, said = torch.empty(len(parts), settings.draws, 2, dtype=torch.float64), []
    for index, draw in product(range(len(parts)), range(settings.draws)):
        pairs[index, draw] = _pair(parts[index], model, scales, (settings.seed, draw))
        said.append(_scalars(model))
    pairs = pairs.mean(1)  # (files, 2): draws of one file are not independent of each other
    change = pairs[:, 1] - pairs[:, 0]
    error = change.std() / len(change) ** 0.5 if len(change) > 1 else torch.tensor(0.0)
    return {
        "base": float(pairs[:, 0].mean()),
        "adapted": float(pairs[:, 1].mean()),
        "change": float(change.mean()),
        "change_standard_error": float(error),
        "adapters": {name: fmean(each[name] for each in said) for name in said[0]},
    }


@torch.no_grad()
def _pair(
    part: Part, model: Model, scales: Mapping[str, float], seed: tuple[int, ...]
) -> torch.Tensor:  # (2,)
    """The loss of one draw with adapters off, and on."""
    noised = model.backbone.noise(part.latents, generator(*seed, "validation", part.stream))
    losses, reference = [], shown(part)
    for on in ({}, scales):
        adapters = model.scaled(on)
        with switched_on(adapters, len(part.prompts), reference=reference):
            text = told(adapters, part.text, part.prompts)
            with model.engine.autocast():
                prediction = model.backbone.predict(noised.latents, noised.times, text)
        losses.append((prediction.float() - noised.target).square().mean())
    return torch.stack(losses)


def _scalars(model: Model) -> dict[str, float]:
    """What each adapter says of its last pass."""
    return {
        f"{name}.{key}": float(value)
        for name, adapter in model.adapters.items()
        for key, value in adapter.scalars().items()
    }
