"""Spectra of previews in TensorBoard: when motion and detail come into what a run generates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jtcore import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from jtcore.recipe import Recipe
    from jtcore.run import Run

FINE = 0.25  # cycles/pixel: details of less than four pixels
FOLDER = "spectra"  # beside the run's other events, which a resumed run purges by itself


class Spectra:
    """Tells of each preview the share of its energy that moves, and that is fine

    Both are shares of what is left of a video without its mean: `moving` is at other frequencies in
    time than 0, `fine` above 1/4 cycles/pixel. Nothing is told of runs without `sample.preview`.
    """

    def __init__(self, run: Run, recipe: Recipe) -> None:
        self.run = run

    @hookimpl
    def jt_preview_decoded(self, number: int, preview: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shares = measure(self.run.folder / "previews" / preview["file"])
        title = f"{preview['prompt']}, seed {preview['seed']}"
        with SummaryWriter(self.run.folder / "tensorboard" / FOLDER) as writer:
            for name, share in shares.items():
                writer.add_scalar(f"spectrum/{name}/{title}", share, number)


def measure(video: Path) -> dict[str, float]:
    """Of a video on disk, each in [0, 1]; of one that is the same all over, nothing."""
    from jtcore.media import read_sample
    from jtcore.spectrum import radial, temporal

    clip = read_sample(video)[0][None].numpy()
    in_time, in_space = temporal(clip, centred=True), radial(clip, centred=True)
    if not in_time.total.any():
        return {}
    fine = in_space.axes[0].values > FINE
    return {
        "moving": float(in_time.share.energy[0, 1:].sum()),
        "fine": float(in_space.share.energy[0, fine].sum()),
    }


@hookimpl
def jt_observers() -> list[type]:
    return [Spectra]
