"""What a shift of predicted noise does to the latents that it belongs to, by frequency.

Noised latents are x = signal * x0 + sigma * e. A network that answers e + s has, in effect, the
clean latents x0 - sigma / signal * s: a shift s that all frames share is a still pattern in them,
and one that all places share a change of brightness of whole frames. Which axes share it decides
which frequencies it reaches. Axes are named by what a shift is *shared* over, as in the released
code's channel-temporal shift, one map for all channels and frames (https://arxiv.org/abs/2503.23951,
figure 4).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from attrs import evolve, frozen
from torch import Tensor

from jtcore.diffusion import Levels, noised, separate
from jtcore.frequency.figures import Figure, Line, Panel
from jtcore.noise import Axis, draw_shared
from jtcore.rng import generator
from jtcore.spectrum import Spectrum, Window, radial, temporal
from jtcore.statistics import mean_interval
from jtcore.types import Backbone

Shifted = Literal["noise", "prediction"]

SHARED: Mapping[str, tuple[Axis, ...]] = {
    "independent": (),
    "channel": ("channel",),
    "temporal": ("frame",),
    "spatial": ("row", "column"),
    "channel-temporal": ("channel", "frame"),
    "channel-spatial": ("channel", "row", "column"),
    "spatial-temporal": ("frame", "row", "column"),
    "all": ("channel", "frame", "row", "column"),
}
CLEAN = "clean"


@frozen
class Settings:
    """How shifts are looked into"""

    times: tuple[float, ...] = (200, 400, 600, 800)  # in the schedule's own unit
    shifts: tuple[str, ...] = ("channel", "spatial", "temporal", "channel-temporal")
    std: float = 1.0
    shifted: Shifted = "noise"  # or what the network answers, as the released loss has it
    draws: int = 4  # for each clip
    bands: int = 8
    window: Window = "none"
    seed: int = 0


def shifted_latents(
    clean: Tensor, backbone: Backbone, time: float, shift: Tensor, noise: Tensor, of: Shifted
) -> Tensor:  # all (N, C, F, H, W), a shift with size 1 where it is shared
    """The clean latents that the true answer at a time stands for when it is shifted."""
    times = torch.full((len(clean),), time)
    levels = _known(backbone.levels(times))
    seen = noised(backbone.prediction, clean, noise, times, levels)
    if of == "noise":
        signal, sigma = levels.over(clean)
        return clean - sigma / signal * shift
    return separate(backbone.prediction, seen.target + shift, seen.latents, levels)[0]


def spectra(
    clean: Tensor, backbone: Backbone, settings: Settings
) -> Iterator[tuple[float, str, Spectrum, Spectrum]]:
    """Of latents (N, C, F, H, W): at each time, clean and under each shift, the share of energy by
    frequency in space and in time, of each clip the mean over draws."""
    rng = generator(settings.seed, "frequency", "shift")
    repeated = clean.double().repeat(settings.draws, 1, 1, 1, 1)
    noise = torch.randn(repeated.shape, generator=rng, dtype=torch.float64)
    drawn = {
        name: draw_shared(repeated.shape, SHARED[name], settings.std, rng).double()
        for name in settings.shifts
    }
    for time in settings.times:
        yield time, CLEAN, *_both(clean, settings)
        for name, shift in drawn.items():
            found = shifted_latents(repeated, backbone, time, shift, noise, settings.shifted)
            yield time, name, *(_by_clip(each, len(clean)) for each in _both(found, settings))


def figure(clean: Tensor, backbone: Backbone, settings: Settings, of: str) -> Figure:
    """The share of energy in each band: a panel in space and one in time for each time."""
    lines: dict[tuple[float, str], list[Line]] = {}
    units = {}
    for time, name, *both in spectra(clean, backbone, settings):
        for each in both:
            axis = each.axes[0]
            units[axis.name] = axis.unit
            lines.setdefault((time, axis.name), []).append(line(name, each))
    panels = [
        Panel(_title(time, axis), f"{axis} ({unit})", "share of energy", lines[time, axis], True)
        for axis, unit in units.items()
        for time in settings.times
    ]
    note = f"{of}; {settings.shifted} shifted by N(0, {settings.std:g}^2); mean, 95 % over clips"
    return Figure("Latents under shifts, by frequency", panels, len(settings.times), note)


def line(name: str, found: Spectrum) -> Line:
    """Mean over clips of their energies, with its 95 % interval."""
    intervals = [mean_interval(band.tolist()) for band in found.energy.T]
    bounded = all(each.is_bounded for each in intervals)
    return Line(
        name,
        found.axes[0].values.tolist(),
        [each.estimate for each in intervals],
        [each.low for each in intervals] if bounded else None,
        [each.high for each in intervals] if bounded else None,
    )


def problems(settings: Settings, backbone: Backbone) -> Iterator[str]:
    for name in settings.shifts:
        if name not in SHARED:
            yield f"--shifts {name}: no shift; there are {', '.join(SHARED)}"
    for time in settings.times:
        if not _has_signal(backbone, time):
            yield f"--times {time:g}: the schedule has no such time, or nothing but noise there"


def _both(clips: Tensor, settings: Settings) -> Sequence[Spectrum]:
    return (
        radial(clips, settings.bands, settings.window).share,
        temporal(clips, settings.window).share,
    )


def _title(time: float, axis: str) -> str:
    """Of no other panel: its numbers go by it."""
    return f"t = {time:g}, in {'time' if axis.startswith('temporal') else 'space'}"


def _by_clip(found: Spectrum, clips: int) -> Spectrum:  # of draws * clips -> of clips
    """The mean over draws, which are no more clips: intervals are over these alone."""
    return evolve(found, energy=found.energy.reshape(-1, clips, found.energy.shape[1]).mean(0))


def _has_signal(backbone: Backbone, time: float) -> bool:
    try:
        signal = _known(backbone.levels(torch.tensor([time]))).signal
    except IndexError:  # of a schedule that is a table
        return False
    return bool((signal > 0).all() and (signal <= 1).all())


def _known(levels: Levels) -> Levels:
    assert not levels.signal.is_meta, "a schedule is known without weights"
    return levels
