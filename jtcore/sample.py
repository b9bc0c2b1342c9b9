"""Generation: from noise to videos on disk, with adapters on or off."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from jtcore.adapter import switched_on
from jtcore.errors import JtError
from jtcore.media import write_video
from jtcore.model import Model
from jtcore.recipe import Sampling
from jtcore.types import BackboneSpec


@frozen
class Request:
    """One video to generate."""

    prompt: str
    seed: int
    file: str  # relative to the folder of samples
    scales: Mapping[str, float]  # of the adapters that are on, by name

    @property
    def model(self) -> str:
        """ "base" or "adapted": what it shows."""
        return "adapted" if self.scales else "base"


def requests(settings: Sampling, scales: Mapping[str, float]) -> Iterator[Request]:
    """Every prompt with every seed; without `scales`, of the backbone alone."""
    folder = "adapted" if scales else "base"
    for number, prompt in enumerate(settings.prompts):
        for seed in settings.seeds:
            file = f"{folder}/{number:02d}-seed{seed}.mp4"
            yield Request(prompt, seed, file, scales)


def denoise(
    request: Request, settings: Sampling, model: Model, shape: tuple[int, int, int, int]
) -> Tensor:
    """From noise to latents (1, C, F, H, W), with classifier-free guidance.

    The two halves of guidance are one batch. All randomness is drawn from a generator with the
    request's seed, as a diffusers pipeline would be given one.
    """
    rng, device = torch.Generator().manual_seed(request.seed), model.engine.device
    sampler = model.backbone.sampler(settings.steps)
    latents = sampler.start((1, *shape), rng).to(device)
    captions = [request.prompt] if settings.guidance == 1 else [settings.negative, request.prompt]
    text = torch.stack([model.texts[caption] for caption in captions]).to(device)
    on = model.scaled(request.scales)
    for index, time in enumerate(sampler.times):
        with torch.no_grad(), switched_on(on, len(captions)), model.engine.autocast():
            times = time.to(device).expand(len(captions))
            doubled = latents.expand(len(captions), *shape)
            answers = model.backbone.predict(doubled, times, text).float()
        prediction = answers[-1:]
        if settings.guidance != 1:
            prediction = answers[:1] + settings.guidance * (prediction - answers[:1])
        latents = sampler.step(prediction, index, latents, rng)
    return latents


def generate(
    wanted: Sequence[Request],
    folder: Path,
    settings: Sampling,
    spec: BackboneSpec,
    model: Model,
    between: Callable[[], None],
) -> list[dict[str, Any]]:
    """Write every video that is not there yet, each as soon as it is denoised.

    Returns one entry per video: file, model, prompt, seed, scales.
    `between` is called between videos and may raise Interrupted. Raises JtError where the model
    generates numbers that are not finite.
    """
    missing = [request for request in wanted if not (folder / request.file).is_file()]
    shape = spec.latent_shape(settings.frames, *settings.size)
    codec = spec.load_codec(model.engine.device) if missing else None
    for request in missing:
        between()
        latents = denoise(request, settings, model, shape)
        if not latents.isfinite().all():
            raise JtError(
                f"{request.file}: the {request.model} model generates numbers that are not finite;"
                " lower its learning rate or scale"
            )
        with torch.no_grad():
            pixels = codec.decode(latents)[0]
        write_video(folder / request.file, (pixels.float() / 2 + 0.5).clamp(0, 1), settings.fps)
    return [_entry(request) for request in wanted]


def _entry(request: Request) -> dict[str, Any]:
    return {
        "file": request.file,
        "model": request.model,
        "prompt": request.prompt,
        "seed": request.seed,
        "scales": dict(request.scales),
    }
