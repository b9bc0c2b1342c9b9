"""Videos of a grid for a page: which file shows which prompt of which run, as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from jtcore.grids.axes import SEED
from jtcore.grids.contrasts import Factor, compared, factors
from jtcore.grids.grid import Grid
from jtcore.grids.kept import Kept
from jtcore.grids.readings import Reading
from jtcore.run import read_json


def matrix(
    grid: Grid, readings: Sequence[Reading], kept: Mapping[str, Kept]
) -> dict[str, Any] | None:
    """What the page's script shows; None where there is no video.

    {"factors": [{"name", "levels"}], with the seed as the last; "compared": which is across;
    "prompts"; "runs": [{"at": levels, "why": where it has no videos, "clip": [frames, fps], "base",
    "adapted": [[prompt, seed of sampling, file]]}]}
    """
    if not any(reading.samples for reading in readings):
        return None
    chosen = factors(grid) or [compared(grid)]
    seeds = Factor((SEED,), tuple((seed,) for seed in grid.axes.get(SEED, ())))
    chosen = [f for f in [*chosen, *([seeds] if seeds.levels else [])] if f.axes]
    prompts = list(dict.fromkeys(s["prompt"] for reading in readings for s in reading.samples))
    numbers = {prompt: number for number, prompt in enumerate(prompts)}
    return {
        "factors": [{"name": factor.name, "levels": factor.names} for factor in chosen],
        "compared": 0,
        "prompts": prompts,
        "runs": [
            _run(reading, kept.get(reading.trial.folder, Kept()), chosen, numbers)
            for reading in readings
        ],
    }


def _run(
    reading: Reading, kept: Kept, chosen: Sequence[Factor], numbers: Mapping[str, int]
) -> dict[str, Any]:
    files = {model: _files(reading, model, numbers) for model in ("base", "adapted")}
    why = "" if reading.samples else reading.state
    at = [factor.at(reading.trial.point) for factor in chosen]
    return {"at": at, "why": why, "clip": [kept.frames, kept.fps], **files}


def _files(reading: Reading, model: str, numbers: Mapping[str, int]) -> list[list]:
    folder = quote(reading.trial.folder)
    return [
        [numbers[each["prompt"]], each["seed"], f"{folder}/samples/{quote(each['file'])}"]
        for each in reading.samples
        if each["model"] == model
    ]


def is_enlarged(readings: Sequence[Reading]) -> bool:
    """Whether each pixel of the videos is to be a square."""
    facts = (read_json(reading.folder / "report.json") for reading in readings if reading.samples)
    return bool((next(facts, None) or {}).get("enlarged"))


def as_json(found: Mapping[str, Any]) -> str:
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))
