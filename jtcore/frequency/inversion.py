"""What a shift of answers does to a video that is inverted to noise and reconstructed from it.

DDIM (https://arxiv.org/abs/2010.02502) walks up from clean latents to noise, and deterministically
down again; on the way down each answer is shifted, alike at every step, by a draw for each clip.
Beside it, in one step: the latents that the true noise, shifted, stands for at each time
(https://arxiv.org/abs/2503.23951, figure 3, whose code is not released).
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from jtcore.adapter import switched_on
from jtcore.diffusion import separate
from jtcore.frequency.figures import Figure, Panel
from jtcore.frequency.shift import CLEAN as UNSHIFTED
from jtcore.frequency.shift import (
    SHARED,
    Settings,
    by_clip,
    folds,
    line,
    panel_at,
    shifted,
    shifted_latents,
)
from jtcore.frequency.subject import Subject
from jtcore.inversion import CLEAN, invert
from jtcore.model import Model
from jtcore.noise import draw_shared
from jtcore.recipe import NoisePrior
from jtcore.rng import generator
from jtcore.sample import decoded
from jtcore.types import Backbone

CLIPS = "the clips"
FRAMES = 3  # of each video, to show


@torch.no_grad()
def reconstruct(
    noise: Tensor, prompt: str, steps: int, model: Model, shift: Tensor | None = None
) -> Tensor:  # (C, F, H, W) -> (C, F, H, W)
    """Clean latents of the noise that `invert` found, down the same times; adapters are off."""
    backbone, device = model.backbone, model.engine.device
    text = model.texts[prompt][None].to(device)
    latents = noise[None].to(device, torch.float32)
    times = [time[None].to(device) for time in backbone.sampler(steps).times]
    levels = [backbone.levels(time) for time in times]
    for time, level, to in zip(times, levels, [*levels[1:], CLEAN], strict=True):
        with model.engine.autocast(), switched_on({}, 1):
            answer = backbone.predict(latents, time, text).float()
        if shift is not None:
            answer = answer + shift.to(answer)
        clean, of_noise = separate(backbone.prediction, answer, latents, level)
        signal, sigma = to.over(latents)  # and never by the first one's signal, which may be 0
        latents = signal * clean + sigma * of_noise
    return latents[0]


def reconstructions(
    subject: Subject, stream: str, settings: Settings, steps: int
) -> dict[str, Tensor]:
    """Clips of a table as they are, reconstructed, and reconstructed under each shift: by name,
    (N, C, F, H, W)."""
    model, clips = subject.model, subject.latents(stream)
    rng = generator(settings.seed, "frequency", "inversion")
    prior = NoisePrior(video="", steps=steps)
    inverted = [invert(clip, prior, model) for clip in clips]
    found = {
        "clip": clips,
        "reconstructed": torch.stack([reconstruct(n, "", steps, model).cpu() for n in inverted]),
    }
    for name in settings.shifts:
        shifts = draw_shared(clips.shape, SHARED[name], settings.std, rng).split(1)
        found[name] = torch.stack(
            [
                reconstruct(noise, "", steps, model, shift).cpu()
                for noise, shift in zip(inverted, shifts, strict=True)
            ]
        )
    return found


def figure(found: Mapping[str, Tensor], settings: Settings, of: str) -> Figure:
    """The energy of the error beside the clips, by frequency in space and in time."""
    clips, panels = found["clip"].double(), []
    for domain, fold in zip(("space", "time"), folds(settings)[:2], strict=True):
        lines = [line(CLIPS, fold(np.asarray(clips)))]
        lines += [
            line(f"error: {name}", fold(np.asarray(each.double() - clips)))
            for name, each in found.items()
            if name != "clip"
        ]
        axis = fold(np.asarray(clips)).axes[0]
        title = f"error of reconstruction, in {domain}"
        panels.append(Panel(title, f"{axis.name} ({axis.unit})", "energy", lines, True))
    note = f"{of}; DDIM inversion, answers shifted by N(0, {settings.std:g}²) on the way down"
    note += "; mean and 95 % interval over clips"
    title = "Inversion and reconstruction under shifts"
    return Figure(title, panels, 2, note, same_scale=True)


def one_step_figure(clips: Tensor, backbone: Backbone, settings: Settings, of: str) -> Figure:
    """The energy of the error beside the clips (N, C, F, H, W), where the true answer is shifted at
    one time alone: in space and in time at each."""
    panels: dict[str, Panel] = {}
    known = clips.double().repeat(settings.draws, 1, 1, 1, 1)
    for time, name, latents in shifted(clips, backbone, settings):
        label = CLIPS if name == UNSHIFTED else f"error: {name}"
        error = latents if name == UNSHIFTED else latents - known
        for fold in folds(settings)[:2]:
            told = by_clip(fold(np.asarray(error)), len(clips))
            empty = panel_at(time, told, "energy")
            panel = panels.setdefault(empty.title, empty)
            panel.lines.append(line(label, told))
    note = (
        f"{of}; {settings.shifted} shifted by N(0, {settings.std:g}²); mean and 95 % interval over"
        " clips"
    )
    title = "Errors of clean latents that a shifted answer stands for"
    return Figure(title, list(panels.values()), 2, note, same_scale=True)


def pictures(
    subject: Subject, found: Mapping[str, Tensor], at: str | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Frames of the first clip under each name, (height, width, 3) in [0, 1]: its first, middle
    and last."""
    codec = subject.recipe.backbone.spec.load_codec(subject.engine.device)
    for name, clips in found.items():
        video = decoded(clips[:1].float().to(subject.engine.device), codec).cpu()
        places = np.linspace(0, video.shape[1] - 1, min(FRAMES, video.shape[1])).round().astype(int)
        gap = torch.ones(3, video.shape[2], max(1, video.shape[3] // 24))
        shown = torch.cat([each for place in places for each in (video[:, place], gap)][:-1], 2)
        yield name if at is None else f"{name}, {at}", shown.permute(1, 2, 0).numpy()


def one_step(subject: Subject, clips: Tensor, settings: Settings) -> Iterator[tuple[str, Tensor]]:
    """The first clip at each time under each shift of its true noise: a label, (1, C, F, H, W)."""
    rng = generator(settings.seed, "frequency", "one step")
    clip = clips[:1].double()
    noise = torch.randn(clip.shape, generator=rng, dtype=torch.float64)
    for name in settings.shifts:
        shift = draw_shared(clip.shape, SHARED[name], settings.std, rng).double()
        for time in settings.times:
            moved = shifted_latents(clip, subject.schedule, time, shift, noise, settings.shifted)
            yield f"{name}, t = {time:g}", moved
