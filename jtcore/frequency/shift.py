"""What a shift of predicted noise does to the latents that it belongs to, by frequency.

Noised latents are x = signal * x0 + sigma * e. A network that answers e + s has, in effect, the
clean latents x0 - sigma / signal * s: a shift s that all frames share is a still pattern in them,
and one that all places share a change of brightness of whole frames. Which axes share it decides
which frequencies it reaches. Axes are named by what a shift is *shared* over, as in the released
code's channel-temporal shift, one map for all channels and frames (https://arxiv.org/abs/2503.23951,
figure 4).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import exp, inf
from typing import Literal

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from jtcore.diffusion import Levels, noised, separate
from jtcore.frequency.figures import Figure, Line, Map, Panel
from jtcore.noise import Axis, draw_shared
from jtcore.rng import generator
from jtcore.spectrum import Axis as Frequencies
from jtcore.spectrum import Spectrum, Window, joint, radial, temporal
from jtcore.statistics import Interval, mean_interval
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


def shifted(
    clean: Tensor, backbone: Backbone, settings: Settings
) -> Iterator[tuple[float, str, Tensor]]:
    """Of latents (N, C, F, H, W): at each time, clean and under each shift, (draws N, C, F, H, W),
    all draws of the first clip apart by N."""
    rng = generator(settings.seed, "frequency", "shift")
    repeated = clean.double().repeat(settings.draws, 1, 1, 1, 1)
    noise = torch.randn(repeated.shape, generator=rng, dtype=torch.float64)
    drawn = {
        name: draw_shared(repeated.shape, SHARED[name], settings.std, rng).double()
        for name in settings.shifts
    }
    for time in settings.times:
        yield time, CLEAN, clean.double()
        for name, shift in drawn.items():
            yield (
                time,
                name,
                shifted_latents(repeated, backbone, time, shift, noise, settings.shifted),
            )


def figures(clean: Tensor, backbone: Backbone, settings: Settings, of: str) -> dict[str, Figure]:
    """The share of energy in each band, by name of a file: in space and in time at each time, and
    where in both at once."""
    panels, maps, unshifted = {}, [], None
    for time, name, latents in shifted(clean, backbone, settings):
        each = [by_clip(fold(np.asarray(latents)).share, len(clean)) for fold in folds(settings)]
        for told in each[:2]:
            panel = panels.setdefault(
                (time, told.axes[0].name), panel_at(time, told, "share of energy")
            )
            panel.lines.append(line(name, told, most=1))
        if name == CLEAN:
            unshifted = each[2]
        else:
            maps.append(_map(f"{name}, t = {time:g}", each[2], unshifted))
    note = f"{of}; {settings.shifted} shifted by N(0, {settings.std:g}²)"
    told = f"{note}; mean and 95 % interval over clips"
    title = "Latents under shifts, by frequency"
    by_shift = sorted(maps, key=lambda one: settings.shifts.index(one.title.split(", t")[0]))
    return {
        "shift": Figure(title, list(panels.values()), 2, told, same_scale=True),
        "shift_joint": Figure(
            "What shifts add and take, by frequency in space and in time",
            columns=len(settings.times),
            note=note,
            maps=by_shift,
            of_maps="share of energy, shifted over clean\n(factor, log2)",
        ),
    }


def folds(settings: Settings) -> Sequence[Callable[[np.ndarray], Spectrum]]:
    """In space, in time, and in both."""
    bands, window = settings.bands, settings.window
    return (
        partial(radial, bands=bands, window=window),
        partial(temporal, window=window),
        partial(joint, bands=bands, window=window),
    )


def line(name: str, found: Spectrum, positive: bool = True, most: float = inf) -> Line:
    """Mean over clips of their energies, which are at `most` so large, with its 95 % interval; of
    estimates of an energy that may come out below 0, none is `positive`."""
    interval = energy_interval if positive else mean_interval
    intervals = [interval(band.tolist()) for band in found.energy.T]
    bounded = all(each.is_bounded for each in intervals)
    return Line(
        name,
        found.axes[0].values.tolist(),
        [each.estimate for each in intervals],
        [each.low for each in intervals] if bounded else None,
        [min(each.high, most) for each in intervals] if bounded else None,
    )


def energy_interval(values: Sequence[float]) -> Interval:
    """The mean of numbers that are not below 0, and the interval of its logarithm by Student's t
    and the delta method: m exp(+- t s / (m sqrt(n))). Few energies, of which one is much larger
    than the others, have it nearer to 95 % than m +- t s / sqrt(n), which also goes below 0."""
    found = mean_interval(values)
    if not found.is_bounded or found.estimate <= 0:
        return found
    reach = (found.high - found.estimate) / found.estimate
    factor = exp(reach) if reach < 700 else inf
    return evolve(found, low=found.estimate / factor, high=found.estimate * factor)


def problems(settings: Settings, backbone: Backbone) -> Iterator[str]:
    for name in settings.shifts:
        if name not in SHARED:
            yield f"--shifts {name}: no shift; there are {', '.join(SHARED)}"
    for time in settings.times:
        if not _has_signal(backbone, time):
            yield f"--times {time:g}: the schedule has no such time, or nothing but noise there"


def panel_at(time: float, told: Spectrum, y: str) -> Panel:
    """With a title of no other panel's: its numbers go by it."""
    axis = told.axes[0]
    title = f"t = {time:g}, in {'time' if axis.unit == 'cycles/frame' else 'space'}"
    return Panel(title, _named(axis), y, [], True)


def _map(title: str, told: Spectrum, unshifted: Spectrum) -> Map:
    """log2 of how many times its share each band has, of the means over clips."""
    time, space = told.axes
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.log2(told.energy.mean(0) / unshifted.energy.mean(0))
    return Map(title, _named(space), _named(time), space.values, time.values, factors)


def _named(axis: Frequencies) -> str:
    return f"{axis.name} ({axis.unit})"


def by_clip(found: Spectrum, clips: int) -> Spectrum:  # of draws * clips -> of clips
    """The mean over draws, which are no more clips: intervals are over these alone."""
    return evolve(found, energy=found.energy.reshape(-1, clips, *found.energy.shape[1:]).mean(0))


def _has_signal(backbone: Backbone, time: float) -> bool:
    try:
        signal = _known(backbone.levels(torch.tensor([time]))).signal
    except IndexError:  # of a schedule that is a table
        return False
    return bool((signal > 0).all() and (signal <= 1).all())


def _known(levels: Levels) -> Levels:
    assert not levels.signal.is_meta, "a schedule is known without weights"
    return levels
