"""Initial noise out of a video: DDIM (https://arxiv.org/abs/2010.02502) walked upwards."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from jtcore.cache import Cache
from jtcore.data import Data
from jtcore.decode import timeline
from jtcore.diffusion import Levels, separate
from jtcore.errors import JtError
from jtcore.model import Model
from jtcore.recipe import NoisePrior, Sampling
from jtcore.stream import load_items
from jtcore.types import BackboneSpec

CLEAN = Levels(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))


def load_reference(
    settings: Sampling,
    spec: BackboneSpec,
    cache: Cache,
    device: torch.device,
    say: Callable[[str], None],
) -> Tensor | None:  # (C, F, H, W), on the CPU
    """The latents of the noise prior's video, spread over as many frames as are sampled.

    None where there is no such prior. The codec is loaded only for what the cache does not have,
    and freed. Raises JtError.
    """
    prior = settings.noise_prior
    if prior is None:
        return None
    data = Data(prior.video, settings.size, prior.prompt, settings.frames)
    (item,) = load_items("sample.noise_prior", data, spec, cache, device, say)
    return item.latents[0]


def prior_problems(settings: Sampling) -> Iterator[str]:
    """What is wrong with the file of the noise prior."""
    path = Path(settings.noise_prior.video)
    try:
        found = len(timeline(path).starts)
    except JtError as error:
        yield from error.problems
        return
    if found < settings.frames:
        yield f"{path}: too short: it has {found}, and {settings.frames} frames are sampled"


@torch.no_grad()
def invert(clean: Tensor, prior: NoisePrior, model: Model) -> Tensor:
    """The noise that deterministic sampling turns into the latents `clean` (C, F, H, W) again: of
    the same shape, on the model's device.

    Nothing is drawn, and nothing guides: the denoiser answers the prior's prompt, with adapters
    off. On each step up it is asked for the noise at the time to come, with latents that are still
    one step lower, for noise changes little between the two. So nobody asks of clean latents, for
    which there is no time, nor divides by the signal of the last, which may have none.
    """
    backbone, device = model.backbone, model.engine.device
    text = model.texts[prior.prompt][None].to(device)
    latents = clean[None].to(device, torch.float32)
    below = CLEAN
    for time in reversed(backbone.sampler(prior.steps).times):
        times = time[None].to(device)
        with model.engine.autocast():
            answer = backbone.predict(latents, times, text).float()
        level = backbone.levels(times)
        _, noise = separate(backbone.prediction, answer, latents, level)
        latents = _moved(latents, noise, below, level)
        below = level
    return latents[0]


def mix(inverted: Tensor, fresh: Tensor, share: float) -> Tensor:  # all (..., C, F, H, W)
    """Noise of which `share`, in [0, 1], of the variance is inverted. Frames of `fresh` that a
    backbone put before the first stay as they are."""
    before = fresh.shape[-3] - inverted.shape[-3]
    mixed = share**0.5 * inverted + (1 - share) ** 0.5 * fresh[..., before:, :, :]
    return torch.cat([fresh[..., :before, :, :], mixed], -3)


def _moved(latents: Tensor, noise: Tensor, level: Levels, to: Levels) -> Tensor:
    """Latents (B, C, F, H, W) at a `level`, with that `noise`, at another."""
    (signal, sigma), (to_signal, to_sigma) = level.over(latents), to.over(latents)
    return to_signal * (latents - sigma * noise) / signal + to_sigma * noise
