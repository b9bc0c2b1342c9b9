"""Generation: from noise to videos on disk, with adapters on or off."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from attrs import Factory, frozen
from torch import Tensor

from jtcore.adapter import Adapter, switched_on, told
from jtcore.cache import Key, canonical
from jtcore.controls import begin, leading, moved
from jtcore.errors import JtError
from jtcore.guidance import cosine_guidance, guide
from jtcore.inversion import invert, mix
from jtcore.media import write_video
from jtcore.model import Model
from jtcore.noise import SharedNoise
from jtcore.recipe import Sampling
from jtcore.references import sampled
from jtcore.scales import moments, over_batch
from jtcore.shared import Shared, digest_of
from jtcore.structure import unstructure
from jtcore.types import BackboneSpec, Codec, Sampler

UNUSUAL = (
    "scheduler",
    "dynamic_guidance",
    "noise_prior",
    "noise",
    "control",
)  # told where they are used
# which videos are asked for, and what is of adapters: a batch says the one, and has not the other
NOT_OF_BASE = ("prompts", "seeds", "batch", "scales", "schedule", "reference", "preview")

LESS = "sample one video at a time (batch), or take a smaller size, fewer frames or guidance 1"


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
    batch: Sequence[Request],
    settings: Sampling,
    model: Model,
    shape: tuple[int, int, int, int],
    inverted: Tensor | None = None,
) -> Tensor:
    """From noise to latents (B, C, F, H, W), with classifier-free guidance; `batch` is of requests
    with the same scales, and `inverted` (C, F, H, W) what the noise prior mixes in.

    The two halves of guidance are one batch. Each video has a sampler of its own, and a generator
    with its request's seed, from which all its randomness is drawn, as a diffusers pipeline would
    be given one: in company it is what it is alone, but for how sums are rounded.
    """
    device, backbone = model.engine.device, model.backbone
    ways = [_Way.begin(request, settings, model) for request in batch]
    latents = torch.cat([way.start(shape, settings.noise) for way in ways]).to(device)
    if inverted is not None:
        latents = mix(inverted, latents, settings.noise_prior.share)
    halves = 1 if settings.guidance == 1 else 2
    captions = [*[settings.negative] * len(batch), *(request.prompt for request in batch)]
    captions = captions[-halves * len(batch) :]
    read = torch.stack([model.texts[each] for each in captions]).to(device)
    times = ways[0].sampler.times
    scales = _scales(batch, settings, model, times, halves)
    reference = sampled(settings.reference, model.pictures, len(batch), halves, device)
    size, count = latents.shape[2:], shape[1]
    controls = [
        begin(settings, backbone, model.words, request.prompt, way.sampler, size, count)
        for request, way in zip(batch, ways, strict=True)
    ]
    for index, time in enumerate(times):
        asked = latents.repeat(halves, 1, 1, 1, 1), time.to(device).expand(len(captions))
        on = switched_on(scales[index], len(captions), reference=reference, halves=halves)
        with torch.no_grad(), on:
            if index == 0 or scales[index] is not scales[index - 1]:
                text = told(scales[index], read, captions)
            led = leading(backbone, controls, index, halves, latents, read.shape[1])
            with model.engine.autocast(), led:
                answers = backbone.predict(*asked, text).float()
        if halves == 2:
            answers = guide(answers, guidance_at(settings, time))
        each = zip(ways, controls, answers.split(1), latents.split(1), strict=True)
        stepped = [(led, way, way.step(answer, index, own)) for way, led, answer, own in each]
        latents = torch.cat([moved(led, index, own, way.rng) for led, way, own in stepped])
    return latents


@frozen(eq=False)
class _Way:
    """One video's way from noise to latents."""

    sampler: Sampler
    rng: torch.Generator

    @classmethod
    def begin(cls, request: Request, settings: Sampling, model: Model) -> "_Way":
        sampler = model.backbone.sampler(settings.steps, settings.scheduler)
        return cls(sampler, torch.Generator().manual_seed(request.seed))

    def start(
        self, shape: tuple[int, int, int, int], offset: SharedNoise | None
    ) -> Tensor:  # (1, C, F, H, W)
        latents = self.sampler.start((1, *shape), self.rng)
        return latents if offset is None else latents + offset.draw(latents.shape, self.rng)

    def step(self, answer: Tensor, index: int, latents: Tensor) -> Tensor:  # (1, C, F, H, W)
        return self.sampler.step(answer, index, latents, self.rng)


def guidance_at(settings: Sampling, time: Tensor) -> float:  # time ()
    """How strongly a step at `time` is guided."""
    if not settings.dynamic_guidance:
        return settings.guidance
    return cosine_guidance(settings.guidance, settings.steps, time.item())


def _scales(
    batch: Sequence[Request], settings: Sampling, model: Model, times: Sequence[Tensor], halves: int
) -> list[dict[Adapter, float | Tensor]]:
    """What adapters are on at in each step, in a batch of the prompted videos or of both halves;
    one and the same where steps agree."""
    scales = batch[0].scales
    scheduled = {name: settings.schedule[name] for name in scales if name in settings.schedule}
    if not scheduled:
        return [model.scaled(scales)] * len(times)
    on, made = [], {}
    for moment in moments(times, model.backbone.levels):
        changed = {
            name: schedule.halves(scales[name], moment)[-halves:]
            for name, schedule in scheduled.items()
        }
        key = tuple(changed.values())
        if key not in made:
            over = {
                name: over_batch(each, len(batch), model.engine.device)
                for name, each in changed.items()
            }
            made[key] = model.scaled({**scales, **over})
        on.append(made[key])
    return on


def generate(
    wanted: Sequence[Request],
    folder: Path,
    settings: Sampling,
    spec: BackboneSpec,
    model: Model,
    between: Callable[[], None],
    reference: Tensor | None = None,
    shared: Shared | None = None,
) -> list[dict[str, Any]]:
    """Write every video that is not there yet, each batch as soon as it is denoised; those of the
    backbone alone are copied from what is `shared`, if another run has made them.

    Returns one entry per video: file, model, prompt, seed, scales, and what else shaped it.
    `between` is called between batches and may raise Interrupted. `reference` (C, F, H, W) are the
    latents of the noise prior's video. Raises JtError where the model generates numbers that are
    not finite.
    """
    making = _Making(folder, settings, spec, model, between, reference)
    busy = []
    for group in _batches(wanted, settings.batch):
        there = [path.is_file() for path in making.files(group)]
        if all(there):
            continue
        between()
        if shared is None or group[0].scales or any(there):
            making.make(group)
        elif not making.share(group, shared, wait=False):
            busy.append(group)  # another run makes them, and there may be others to make meanwhile
    for group in busy:
        between()
        making.share(group, shared)
    return [_entry(request, settings) for request in wanted]


@frozen(eq=False)
class _Making:
    """How videos of one model are made; what is needed for any of them is loaded once."""

    folder: Path
    settings: Sampling
    spec: BackboneSpec
    model: Model
    between: Callable[[], None]
    reference: Tensor | None  # (C, F, H, W)
    loaded: dict[str, Any] = Factory(dict)

    def files(self, group: Sequence[Request]) -> list[Path]:
        return [self.folder / request.file for request in group]

    def make(self, group: Sequence[Request]) -> None:
        """Denoise a batch, and write those of its videos that are not there."""
        if not self.loaded:
            self.loaded["codec"] = self.spec.load_codec(self.model.engine.device)
            self.loaded["inverted"] = self._invert()
        settings, codec = self.settings, self.loaded["codec"]
        denoised = denoise(group, settings, self.model, self._shape, self.loaded["inverted"])
        for request, latents in zip(group, denoised.split(1), strict=True):
            _write(request, latents, self.folder, settings, codec)

    def share(self, group: Sequence[Request], shared: Shared, wait: bool = True) -> bool:
        """The same, unless another run has done so."""
        key = _key(group, self.settings, self.model, self.reference)
        return shared.videos(key, self.files(group), lambda: self.make(group), wait)

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return self.spec.latent_shape(self.settings.frames, *self.settings.size)

    def _invert(self) -> Tensor | None:  # (C, F, H, W)
        if self.reference is None:
            return None
        self.between()
        return invert(self.reference, self.settings.noise_prior, self.model)


def _key(
    group: Sequence[Request], settings: Sampling, model: Model, reference: Tensor | None
) -> Key:
    """What is asked of the backbone alone: all that shapes a batch, and not who shapes it."""
    table = unstructure(settings)
    captions = [*(request.prompt for request in group), settings.negative]
    captions += [settings.noise_prior.prompt] if settings.noise_prior else []
    return {
        "what": "videos",
        "settings": canonical({k: v for k, v in table.items() if k not in NOT_OF_BASE}),
        "prompts": canonical([request.prompt for request in group]),
        "seeds": canonical([request.seed for request in group]),
        "texts": digest_of([model.texts[caption] for caption in captions]),
        "reference": None if reference is None else digest_of([reference]),
    }


def _batches(wanted: Sequence[Request], size: int) -> Iterator[tuple[Request, ...]]:
    """Neighbours with the same scales. A resumed run forms the same ones, with what is there
    already, so that sums are rounded the same."""
    for _, alike in groupby(wanted, lambda request: request.scales):
        alike = list(alike)
        yield from (tuple(alike[first : first + size]) for first in range(0, len(alike), size))


def _write(
    request: Request, latents: Tensor, folder: Path, settings: Sampling, codec: Codec
) -> None:  # latents (1, C, F, H, W)
    """Decode and write a video, unless it is there."""
    if not latents.isfinite().all():
        raise JtError(
            f"{request.file}: the {request.model} model generates numbers that are not finite;"
            " lower its learning rate or scale"
        )
    if (folder / request.file).is_file():
        return
    write_video(folder / request.file, decoded(latents, codec), settings.fps)


@torch.no_grad()
def decoded(latents: Tensor, codec: Codec) -> Tensor:  # (1, C, F, H, W) -> (3, frames, ...)
    """Pixels in [0, 1]."""
    return (codec.decode(latents)[0].float() / 2 + 0.5).clamp(0, 1)


def shaping(settings: Sampling, scales: Mapping[str, float]) -> dict[str, Any]:
    """The options besides a prompt and its like that shape a video with adapters at `scales`, as
    far as they are used."""
    table = unstructure(settings)
    scheduled = {name: table["schedule"][name] for name in scales if name in table["schedule"]}
    told = {key: table.get(key) for key in UNUSUAL}
    told["reference"] = table.get("reference") if scales else None  # the base model is shown none
    told |= {"batch": table["batch"] if table["batch"] > 1 else None, "schedule": scheduled}
    return {key: value for key, value in told.items() if value}


def _entry(request: Request, settings: Sampling) -> dict[str, Any]:
    return {
        "file": request.file,
        "model": request.model,
        "prompt": request.prompt,
        "seed": request.seed,
        "scales": dict(request.scales),
        **shaping(settings, request.scales),
    }
