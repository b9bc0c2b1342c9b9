"""Validation: the diffusion loss on held-out files with fixed noise, adapters off and on.

The training loss of a diffusion model says little: it moves with each draw of noise and time.
On the same draws, the difference between base and adapted model does tell what was learned.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from jtcore.adapter import switched_on, told
from jtcore.cache import canonical
from jtcore.model import Model
from jtcore.noise import PLAIN, Draws, quantiles
from jtcore.recipe import Validation
from jtcore.references import shown
from jtcore.rng import generator
from jtcore.shared import Shared, digest_of
from jtcore.stream import Stream
from jtcore.structure import unstructure
from jtcore.types import Part

Said = list[dict[str, float]]  # what adapters say of each pass


def validate(
    settings: Validation,
    model: Model,
    scales: Mapping[str, float],
    streams: Mapping[str, Stream],
    shared: Shared | None = None,
) -> dict[str, dict[str, Any]]:
    """By stream: mean loss of `base` and `adapted`, and the mean `change` with its standard error
    over files; and means of what `adapters` say of these passes.

    The loss is the mean squared error in the network's own parametrisation. The same times and
    noise are drawn for every file and for both models. Adapters are on at `scales`.
    """
    return {
        name: _summary(streams[name], settings, model, scales, shared) for name in settings.data
    }


def _summary(
    stream: Stream,
    settings: Validation,
    model: Model,
    scales: Mapping[str, float],
    shared: Shared | None,
) -> dict[str, Any]:
    drawn = settings.times == "drawn"
    draws = (PLAIN,) * settings.draws if drawn else quantiles(settings.draws)
    base = base_losses(stream, settings.seed, draws, model, shared)
    adapted, said = losses(stream, settings.seed, draws, model, scales)
    of_adapters = {name: fmean(each[name] for each in said) for name in said[0]}
    return {**compare(base, adapted), "adapters": of_adapters}


def base_losses(
    stream: Stream, seed: int, draws: Sequence[Draws], model: Model, shared: Shared | None
) -> Tensor:  # (files, draws), float64
    """Those of the backbone alone, which another run may have `shared`."""

    def compute() -> dict[str, Tensor]:
        return {"losses": losses(stream, seed, draws, model, {})[0]}

    if shared is None:
        return compute()["losses"]
    parts = [stream.single(item, model.texts) for item in range(len(stream))]
    key = {
        "what": "losses",
        "stream": stream.name,  # which noise is drawn by
        "seed": seed,
        "draws": canonical([unstructure(draw) for draw in draws]),
        "parts": digest_of([tensor for p in parts for tensor in (p.latents, p.text)]),
    }
    return shared.tensors(key, compute)["losses"]


@torch.no_grad()
def losses(
    stream: Stream, seed: int, draws: Sequence[Draws], model: Model, scales: Mapping[str, float]
) -> tuple[Tensor, Said]:  # (files, draws), float64
    """The loss of each file at each of the draws, with adapters on at `scales`."""
    found, said = torch.empty(len(stream), len(draws), dtype=torch.float64), []
    for item in range(len(stream)):
        part = stream.single(item, model.texts)
        for number, draw in enumerate(draws):
            rng = generator(seed, number, "validation", part.stream)
            found[item, number] = _loss(part, model, scales, rng, draw)
            said.append(_scalars(model))
    return found, said


def compare(base: Tensor, adapted: Tensor) -> dict[str, float]:  # each (files, draws)
    """Means, and the mean change with its standard error over files: draws of one file are not
    independent of each other."""
    pairs = torch.stack([base, adapted], -1).mean(1)  # (files, 2)
    change = pairs[:, 1] - pairs[:, 0]
    error = change.std() / len(change) ** 0.5 if len(change) > 1 else torch.tensor(0.0)
    return {
        "base": float(pairs[:, 0].mean()),
        "adapted": float(pairs[:, 1].mean()),
        "change": float(change.mean()),
        "change_standard_error": float(error),
    }


def _loss(
    part: Part, model: Model, scales: Mapping[str, float], rng: torch.Generator, draw: Draws
) -> Tensor:  # ()
    noised = model.backbone.noise(part.latents, rng, draw)
    adapters = model.scaled(scales)
    with switched_on(adapters, len(part.prompts), reference=shown(part)):
        text = told(adapters, part.text, part.prompts)
        with model.engine.autocast():
            prediction = model.backbone.predict(noised.latents, noised.times, text)
    return (prediction.float() - noised.target).square().mean()


def _scalars(model: Model) -> dict[str, float]:
    """What each adapter says of its last pass."""
    return {
        f"{name}.{key}": float(value)
        for name, adapter in model.adapters.items()
        for key, value in adapter.scalars().items()
    }
