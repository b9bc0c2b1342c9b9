"""Power spectra of videos, latents, noise and errors: where in space and time their energy is.

Everything is a fold of one spectrum over time and space, that of |FFT|^2. It is scaled so that the
energies of a clip add up to the mean of its squares (Parseval), whatever its size: that of white
noise of variance 1 is 1. Arrays are real, (N, C, F, H, W), and their channels are averaged over.

Temporal frequencies are in cycles/frame, from 0 to 1/2; spatial ones in cycles/pixel of the array,
which for latents are latent pixels. Of a clip of f frames/s, k cycles/frame are k f hertz.
"""

from collections.abc import Collection, Sequence
from math import sqrt
from typing import Literal, get_args

import numpy as np
from attrs import evolve, frozen
from numpy.typing import ArrayLike
from scipy import fft
from scipy.signal import get_window

Window = Literal["none", "hann"]
Domain = Literal["time", "space"]
FARTHEST = sqrt(0.5)  # cycles/pixel, of the corners


@frozen(eq=False)
class Spectrum:
    """Energy by frequency, of N clips."""

    energy: np.ndarray  # (N, K), or (N, K, L) of two axes
    axes: tuple["Axis", ...]  # one or two

    @property
    def total(self) -> np.ndarray:  # (N,)
        """The mean square of each clip."""
        return self.energy.reshape(len(self.energy), -1).sum(1)

    @property
    def share(self) -> "Spectrum":
        """The same, each clip's energies adding up to 1; of a clip of zeros they are nan."""
        with np.errstate(invalid="ignore"):
            energy = self.energy / self.total.reshape(-1, *[1] * len(self.axes))
        return evolve(self, energy=energy)


@frozen(eq=False)
class Axis:
    """Frequencies that energy is told of, rising."""

    name: str
    unit: str
    values: np.ndarray  # (K,), the middle of each band

    def in_hertz(self, fps: float) -> "Axis":
        """A temporal axis of a clip of that many frames a second."""
        assert self.unit == "cycles/frame", f"{self.unit} are no frequencies in time"
        return Axis(self.name, "Hz", self.values * fps)


def spectrum(
    clips: ArrayLike,  # (N, C, F, H, W)
    window: Window = "none",
    windowed: Collection[Domain] = get_args(Domain),
    centred: bool = False,
) -> np.ndarray:
    """Energy (N, F, H, W) at the signed frequencies of `frequencies`, averaged over channels.

    A window is laid over the domains `windowed`, and scaled so that the energy of noise stays what
    it is; it keeps the edges of a clip, which does not begin again where it ends, from showing as
    high frequencies, and widens each line by a bin or two. `centred` takes each channel's mean away
    first, as the window weighs it, so that nothing is at frequency 0. Tensors may be anywhere, in
    any precision. Raises ValueError for another shape.
    """
    values = _array(clips)
    count, channels, *shape = values.shape
    weights = _weights(shape, window, windowed)
    energy = np.zeros((count, *shape))
    for sample in range(count):
        for channel in range(channels):  # one at a time: a video in complex numbers is large
            each = values[sample, channel]
            mean = (each * weights).mean() / weights.mean() if centred else 0
            each = (each - mean) * weights
            energy[sample] += np.abs(fft.fftn(each, norm="forward")) ** 2
    return energy / channels


def frequencies(shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    """The signed frequencies of each axis of (F, H, W), in cycles/frame and cycles/pixel."""
    return tuple(fft.fftfreq(size) for size in shape)


def temporal(clips: ArrayLike, window: Window = "none", centred: bool = False) -> Spectrum:
    """By frequency in time, whatever the place: of F frames, F // 2 + 1 frequencies."""
    energy = spectrum(clips, window, ("time",), centred)
    return Spectrum(_folded(energy.sum((2, 3))), (_time(energy.shape[1]),))


def radial(
    clips: ArrayLike, bands: int = 8, window: Window = "none", centred: bool = False
) -> Spectrum:
    """By spatial frequency in any direction, whatever the frame: in `bands` as wide as each other,
    from 0 to the corners' sqrt(1/2) cycles/pixel. The first one has frequency 0 in it; those that
    no frequency of so small a clip falls into are left out."""
    energy = spectrum(clips, window, ("space",), centred)
    rings, axis = _rings(energy.shape[2:], bands)
    return Spectrum(_gathered(energy.sum(1), rings), (axis,))


def joint(
    clips: ArrayLike, bands: int = 8, window: Window = "none", centred: bool = False
) -> Spectrum:
    """By frequency in time and in space, as `temporal` and `radial` are: (N, F // 2 + 1, K)."""
    energy = spectrum(clips, window, centred=centred)
    rings, axis = _rings(energy.shape[2:], bands)
    return Spectrum(_folded(_gathered(energy, rings)), (_time(energy.shape[1]), axis))


def low_share(found: Spectrum, below: float) -> np.ndarray:  # (N,)
    """The share of energy in the bands of the last axis whose middle is lower than `below`."""
    low = found.axes[-1].values < below
    return found.share.energy[..., low].reshape(len(found.energy), -1).sum(1)


def _array(clips: ArrayLike) -> np.ndarray:
    if hasattr(clips, "detach"):  # a tensor, which NumPy reads from the CPU alone, and no bfloat16
        clips = clips.detach().cpu().double()
    values = np.asarray(clips, dtype=np.float64)
    if values.ndim != 5 or 0 in values.shape:
        raise ValueError(f"expected clips (N, C, F, H, W), got {values.shape}")
    return values


def _weights(shape: Sequence[int], window: Window, domains: Collection[Domain]) -> np.ndarray:
    """What a clip (F, H, W) is multiplied with; the mean of its squares is 1."""
    weights = np.ones([1] * len(shape))
    for place, (size, domain) in enumerate(zip(shape, ("time", "space", "space"), strict=True)):
        if window == "none" or domain not in domains or size == 1:
            continue
        each = get_window(window, size)
        each = each / np.sqrt(np.mean(each**2))
        weights = weights * each.reshape([-1 if axis == place else 1 for axis in range(len(shape))])
    return weights


def _folded(energy: np.ndarray) -> np.ndarray:  # (N, F, ...) -> (N, F // 2 + 1, ...)
    """Each frequency in time with its negative."""
    size = energy.shape[1]
    folded = energy[:, : size // 2 + 1].copy()
    for k in range(1, (size + 1) // 2):
        folded[:, k] += energy[:, size - k]
    return folded


def _rings(shape: Sequence[int], bands: int) -> tuple[np.ndarray, Axis]:
    """Of each place of a spectrum (H, W), the number of its band among those that have any."""
    if bands < 1:
        raise ValueError(f"expected at least one band, got {bands}")
    rows, columns = frequencies(shape)
    radius = np.hypot(rows[:, None], columns[None])
    known, rings = np.unique(
        np.minimum((radius / FARTHEST * bands).astype(int), bands - 1), return_inverse=True
    )
    middles = (known + 0.5) * FARTHEST / bands
    return rings, Axis("spatial frequency", "cycles/pixel", middles)


def _gathered(energy: np.ndarray, rings: np.ndarray) -> np.ndarray:
    """(N, ..., H, W) -> (N, ..., K)"""
    flat, of_each = energy.reshape(*energy.shape[:-2], -1), rings.ravel()
    parts = [flat[..., of_each == ring].sum(-1) for ring in range(of_each.max() + 1)]
    return np.stack(parts, -1)


def _time(frames: int) -> Axis:
    return Axis("temporal frequency", "cycles/frame", np.arange(frames // 2 + 1) / frames)
