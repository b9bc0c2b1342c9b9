"""What is slow to read of a run, kept in the grid's folder from one look to the next."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import Factory, asdict, frozen

from jtcore.errors import JtError
from jtcore.grids.hparams import SUFFIX
from jtcore.grids.readings import Reading
from jtcore.pages.curves import Curve, read_curves, thin
from jtcore.run import read_json, write_json
from jtcore.tables import parse_toml

FOLDER = ".kept"  # in that of a grid
POINTS = 60  # of a curve, of which a page shows those of all runs
SHOWN = ("loss", "validation")  # in the names of curves
MOVING = ("running", "waiting")  # states


@frozen
class Kept:
    """Of one run: how it learned, and how its videos are played."""

    curves: Mapping[str, Curve] = Factory(dict)  # by tag
    frames: int = 1  # of a video
    fps: float = 8.0


def keep(folder: Path, readings: Sequence[Reading]) -> dict[str, Kept]:
    """By run, of those that nobody is at work on."""
    return {
        reading.trial.folder: _kept(
            folder / FOLDER / f"{reading.trial.folder}.json", reading.folder
        )
        for reading in readings
        if reading.state not in MOVING
    }


def _kept(file: Path, run: Path) -> Kept:
    """As it was read before, while what it was read from is the same."""
    sources = list(_sources(run))
    try:
        found: Any = read_json(file)
    except JtError:
        found = None
    if not found or found["sources"] != sources:
        found = {"sources": sources, "kept": asdict(_read(run))}
        write_json(file, found)
    return Kept(**found["kept"])


def _read(run: Path) -> Kept:
    curves = {
        tag: thin(curve, POINTS)
        for tag, curve in read_curves(run).items()
        if any(word in tag for word in SHOWN)
    }
    recipe = run / "recipe.resolved.toml"
    sample = parse_toml(recipe).get("sample", {}) if recipe.is_file() else {}
    return Kept(curves, **{key: sample[key] for key in ("frames", "fps") if key in sample})


def _sources(run: Path) -> Iterator[list]:
    """Name, bytes and time of each file."""
    events = sorted((run / "tensorboard").glob("events.out.tfevents.*"))
    for path in (*events, run / "recipe.resolved.toml"):
        if path.is_file() and not path.name.endswith(SUFFIX):
            stat = path.stat()
            yield [path.name, stat.st_size, stat.st_mtime_ns]
