"""When motion and appearance form: what a run's model believes of the clean video at each step of
denoising, by frequency; and what its previews were like as training went on.

At each step the answer, guided, stands for clean latents x0. How much of a band of the final video
is there already is 1 - |error|^2 / |final|^2 over the frequencies of that band: 1 when it is done,
0 where nothing is better than an empty frame, below 0 where it is wrong. Still frequencies (0
cycles/frame) hold appearance, moving ones motion.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from attrs import Factory, evolve, frozen
from torch import Tensor

from jtcore.diffusion import separate
from jtcore.experiment import adapter_scales
from jtcore.frequency.figures import Figure, Line, Panel
from jtcore.frequency.shift import line
from jtcore.frequency.subject import Subject
from jtcore.guidance import guide
from jtcore.inversion import invert
from jtcore.media import read_sample
from jtcore.recipe import Sampling
from jtcore.sample import denoise, guidance_at, requests
from jtcore.spectrum import FARTHEST, Spectrum, frequencies, radial, spectrum, temporal
from jtcore.types import Backbone

HALF = FARTHEST / 2  # cycles/pixel, between coarse and fine


@frozen(eq=False, slots=False)
class Recording:
    """A backbone that keeps what its answers stand for"""

    backbone: Backbone
    settings: Sampling
    clean: list[Tensor] = Factory(list)  # a (B, C, F, H, W) for each step
    times: list[float] = Factory(list)

    def predict(self, latents: Tensor, times: Tensor, text: Tensor) -> Tensor:
        answer = self.backbone.predict(latents, times, text)
        told, seen, at = answer.float(), latents, times
        if self.settings.guidance != 1:
            told = guide(told, guidance_at(self.settings, times[0]))
            seen, at = latents.chunk(2)[1], times.chunk(2)[1]
        clean, _ = separate(self.backbone.prediction, told, seen, self.backbone.levels(at))
        self.clean.append(clean.cpu())
        self.times.append(float(at[0]))
        return answer

    def __getattr__(self, name: str) -> object:
        return getattr(self.backbone, name)


def denoised(
    subject: Subject, prompts: int, seeds: Sequence[int], on: bool
) -> tuple[list[float], Tensor, Tensor]:
    """Times (S), beliefs (S, N, C, F, H, W) and final latents (N, C, F, H, W) of the recipe's first
    prompts with each seed, with adapters `on` or off."""
    settings = evolve(
        subject.sampling, prompts=subject.sampling.prompts[:prompts], seeds=tuple(seeds), batch=1
    )
    scales = adapter_scales(subject.recipe) if on else {}
    shape = subject.recipe.backbone.spec.latent_shape(settings.frames, *settings.size)
    prior = subject.prior
    if prior is not None:
        prior = invert(prior, settings.noise_prior, subject.model)
    times, beliefs, finals = [], [], []
    for request in requests(settings, scales):
        recording = Recording(subject.model.backbone, settings)
        model = evolve(subject.model, backbone=recording)
        finals.append(denoise([request], settings, model, shape, prior).cpu())
        beliefs.append(torch.cat(recording.clean))
        times = recording.times
    return times, torch.stack(beliefs, 1), torch.cat(finals)


def formed(beliefs: Tensor, final: Tensor, places: np.ndarray) -> np.ndarray:
    """(S, N, C, F, H, W) and (N, C, F, H, W) -> (S, N): how much of the final video is there, of
    the frequencies at `places` (F, H, W)."""
    whole = spectrum(np.asarray(final.double()))[:, places].sum(1)
    errors = np.stack(
        [spectrum(np.asarray((belief - final).double()))[:, places].sum(1) for belief in beliefs]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - errors / whole


def parts(shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Four parts of all frequencies of (F, H, W): still or moving, coarse or fine."""
    times, rows, columns = frequencies(shape)
    still = np.broadcast_to((times == 0)[:, None, None], shape)
    coarse = np.broadcast_to((np.hypot(rows[:, None], columns[None]) < HALF)[None], shape)
    found = {
        "still, coarse": still & coarse,
        "still, fine": still & ~coarse,
        "moving, coarse": ~still & coarse,
        "moving, fine": ~still & ~coarse,
    }
    return {name: places for name, places in found.items() if places.any()}


def figure(subject: Subject, prompts: int, seeds: Sequence[int], of: str) -> Figure:
    """How much is there after each step, with adapters off and on."""
    panels = []
    for on in (False, True):
        times, beliefs, final = denoised(subject, prompts, seeds, on)
        lines = []
        for name, places in parts(final.shape[2:]).items():
            there = formed(beliefs, final, places)
            x = list(range(1, len(times) + 1))
            mean, low, high = _interval(there)
            lines.append(Line(name, x, mean, low, high))
        title = f"adapters {'on' if on else 'off'}"
        panels.append(Panel(title, "step of denoising", "part that is there", lines))
    note = f"{of}; {prompts} prompts, seeds {list(seeds)}; mean and 95 % interval over videos"
    return Figure("When motion and appearance form", panels, 2, note, same_scale=True)


Bound = list[float] | None


def _interval(values: np.ndarray) -> tuple[list[float], Bound, Bound]:  # (S, N)
    """Mean, low and high of each row; of one video nothing is known of others."""
    from jtcore.statistics import mean_interval

    found = [mean_interval(row.tolist()) for row in values]
    mean = [each.estimate for each in found]
    if not all(each.is_bounded for each in found):
        return mean, None, None
    return mean, [each.low for each in found], [each.high for each in found]


def previews(run: Path) -> dict[int, list[Path]]:
    """The decoded previews of a run by the step that they are of."""
    found: dict[int, list[Path]] = {}
    for path in sorted((run / "previews").glob("step-*/*.mp4")):
        found.setdefault(int(path.parent.name.removeprefix("step-")), []).append(path)
    return found


def training_figure(found: Mapping[int, Sequence[Path]], fps: float, of: str) -> Figure:
    """The share of energy by frequency in previews of so many frames a second, a line for each step
    that has some."""
    clips = {
        step: torch.stack([read_sample(path)[0] for path in paths]) for step, paths in found.items()
    }
    panels = []
    for domain, fold in (("space", partial(radial, centred=True)), ("time", temporal)):
        spectra = {step: fold(np.asarray(each.double())) for step, each in clips.items()}
        if domain == "time":
            spectra = {step: _in_hertz(each, fps) for step, each in spectra.items()}
        axis = next(iter(spectra.values())).axes[0]
        lines = [line(f"step {step}", each.share, most=1) for step, each in spectra.items()]
        label = f"{axis.name} ({axis.unit})"
        panels.append(Panel(f"previews, in {domain}", label, "share of energy", lines, True))
    note = f"{of}; mean and 95 % interval over previews"
    return Figure("Previews as training goes on, by frequency", panels, 2, note)


def _in_hertz(found: Spectrum, fps: float) -> Spectrum:
    return evolve(found, axes=(found.axes[0].in_hertz(fps),))
