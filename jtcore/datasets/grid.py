"""An ablation over the pairs of a dataset: one variant of a recipe for each."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from attrs import frozen

from jtcore.datasets.complete import captioned
from jtcore.datasets.description import Dataset, Pair
from jtcore.errors import JtError
from jtcore.near import did_you_mean
from jtcore.tables import Table, find_recipe, overlay, read_table

MAINS = ("subject", "motion")  # the streams of a recipe that a pair takes the place of


@frozen
class Grid:
    """What is made: an ablation, and what a person should know of it."""

    toml: str
    notes: tuple[str, ...]


def make_grid(dataset: Dataset, base: str, clips: str | None) -> Grid:
    """Of the pairs, over the recipe `base`, by path or shipped name. The clips are those that are
    as long as the recipe's, unless named. Raises JtError."""
    path = find_recipe(base)
    recipe = read_table(path)
    streams = recipe.get("data", {})
    if lacking := [name for name in MAINS if name not in streams]:
        of = " and ".join(f"[data.{name}]" for name in MAINS)
        raise JtError(f"{base}: has no [data.{lacking[0]}]; a pair takes the place of {of}")
    chosen = clips or _as_long(dataset, recipe, base)
    if chosen not in dataset.frames:
        raise JtError(f"--clips {chosen}: unknown clips; {did_you_mean(chosen, dataset.frames)}")
    problems: list[str] = []
    variants = {
        name: _variant(dataset, pair, chosen, recipe, problems, f"pair.{name}")
        for name, pair in dataset.pair.items()
    }
    if problems:
        raise JtError(dict.fromkeys(problems))
    named = path.resolve().as_posix() if Path(base).is_file() else base
    text = tomli_w.dumps({"base": named, "variant": variants})
    return Grid(
        f"# {dataset.title}: {len(variants)} pairs, by jt-data grid.\n{text}",
        tuple(_notes(streams)),
    )


def _as_long(dataset: Dataset, recipe: Table, base: str) -> str:
    frames = recipe["data"]["motion"].get("frames", 1)
    alike = [name for name, count in dataset.frames.items() if count == frames]
    if not alike:
        there = ", ".join(f"{name} ({count} frames)" for name, count in dataset.frames.items())
        raise JtError(f"{base}: its clips have {frames} frames; choose --clips of {there}")
    return alike[0]


def _variant(
    dataset: Dataset, pair: Pair, clips: str, recipe: Table, problems: list[str], place: str
) -> Table:
    """What of the recipe is about its own subject and motion, about the pair's."""
    subject, motion = dataset.subject[pair.subject], dataset.motion[pair.motion]
    if clips not in motion.sources:
        problems.append(f"motion.{pair.motion}.sources: has no {clips}")
        return {}
    table: Table = {"sample": {"prompts": dataset.prompts_of(pair)}} if "sample" in recipe else {}
    for main, one, source in (
        ("subject", subject, subject.source),
        ("motion", motion, motion.sources[clips]),
    ):
        own = recipe["data"][main]["source"]
        table = overlay(table, _inside(recipe, own, source, problems, place))
        for name in _alike(recipe["data"], main):
            stream, change = recipe["data"][name], {"source": source}
            if stream.get("prompt") == recipe["data"][main].get("prompt"):
                change |= _caption(stream, source, dataset.caption_of(one))
            table = overlay(table, {"data": {name: change}})
    return table


def _alike(streams: Table, main: str) -> list[str]:
    """The streams of the same files."""
    source = streams[main].get("source")
    return [name for name, stream in streams.items() if stream.get("source") == source]


def _caption(stream: Table, source: str, told: str) -> Table:
    """None where all files have their own, which takes away the recipe's."""
    if not captioned(Path(source)):
        return {"prompt": told}
    return {"prompt": False} if "prompt" in stream else {}


def _inside(table: Table, own: str, source: str, problems: list[str], place: str) -> Table:
    """Options that name what lies in the folder `own`: the same of the folder `source`."""
    found: Table = {}
    for path, text in _texts(table, ()):
        if text.startswith(f"{own}/"):
            there = Path(source) / text.removeprefix(f"{own}/")
            if not there.exists():
                problems.append(f"{place}: no {there}, and {'.'.join(path)} is {text!r}")
            node: Any = there.as_posix()
            for key in reversed(path):
                node = {key: node}
            found = overlay(found, node)
    return found


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """All options that are text, with their places."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, (*path, key))


def _notes(streams: Table) -> Iterator[str]:
    """Captions that stay."""
    for main in MAINS:
        for name in _alike(streams, main):
            if (said := streams[name].get("prompt")) != streams[main].get("prompt"):
                yield (
                    f"data.{name}.prompt: {said!r} is not that of data.{main}, which has the same"
                    " files, and stays as it is in all variants"
                )
