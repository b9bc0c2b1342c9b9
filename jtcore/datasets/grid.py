"""A grid over the pairs of a dataset: an axis of subjects, and one of motions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import tomli_w
from attrs import frozen

from jtcore.datasets.complete import captioned
from jtcore.datasets.description import Dataset
from jtcore.errors import JtError
from jtcore.near import did_you_mean
from jtcore.tables import Table, find_recipe, overlay, read_table

MAINS = ("subject", "motion")  # the streams of a recipe that a pair takes the place of

Levels = Mapping[str, Mapping[str, Table]]  # of subjects and motions: by name, what it changes


@frozen
class Grid:
    """What is made, and what a person should know of it."""

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
    levels: Levels = {
        main: {
            name: _level(dataset, main, name, chosen, recipe, problems)
            for name in dict.fromkeys(getattr(pair, main) for pair in dataset.pair.values())
        }
        for main in MAINS
    }
    if problems:
        raise JtError(problems)
    make = _variants if _are_told_apart(dataset) else _axes
    named = path.resolve().as_posix() if Path(base).is_file() else base
    text = tomli_w.dumps({"base": named, **make(dataset, levels, "sample" in recipe)})
    return Grid(
        f"# {dataset.title}: {len(dataset.pair)} pairs, by jt-data grid.\n{text}",
        tuple(_notes(streams)),
    )


def _are_told_apart(dataset: Dataset) -> bool:
    """Whether a pair is more than its subject and its motion: it has prompts of its own."""
    return any(pair.prompts for pair in dataset.pair.values())


def _axes(dataset: Dataset, levels: Levels, samples: bool) -> Table:
    """All subjects with all motions, without those that are no pair; prompts name both by words."""
    prompts = dataset.prompts if samples else ()
    words = {gap for text in prompts for _, gap, _, _ in Formatter().parse(text) if gap}
    axes: Table = {main: {} for main in MAINS}
    for main, tables in levels.items():
        for name, table in tables.items():
            said = dataset.words_of(main, name)
            own = {word: said[word] for word in said if word in words}
            axes[main][name] = {"words": own, **table} if own else table
    pairs = {(pair.subject, pair.motion) for pair in dataset.pair.values()}
    for subject in levels["subject"]:
        if lacking := [name for name in levels["motion"] if (subject, name) not in pairs]:
            axes.setdefault("exclude", []).append({"subject": subject, "motion": lacking})
    if not samples:
        return {"axes": axes}
    kept = {word: f"{{{word}}}" for word in words}
    return {"sample": {"prompts": [text.format(**kept) for text in prompts]}, "axes": axes}


def _variants(dataset: Dataset, levels: Levels, samples: bool) -> Table:
    """A variant for each pair, with its prompts."""
    found: Table = {}
    for name, pair in dataset.pair.items():
        found[name] = overlay(levels["subject"][pair.subject], levels["motion"][pair.motion])
        if samples:
            found[name]["sample"] = found[name].get("sample", {}) | {
                "prompts": dataset.prompts_of(pair)
            }
    return {"variant": found}


def _as_long(dataset: Dataset, recipe: Table, base: str) -> str:
    frames = recipe["data"]["motion"].get("frames", 1)
    alike = [name for name, count in dataset.frames.items() if count == frames]
    if not alike:
        there = ", ".join(f"{name} ({count} frames)" for name, count in dataset.frames.items())
        raise JtError(f"{base}: its clips have {frames} frames; choose --clips of {there}")
    return alike[0]


def _level(
    dataset: Dataset, main: str, name: str, clips: str, recipe: Table, problems: list[str]
) -> Table:
    """What of the recipe is about its own subject, or motion, about one of the dataset's."""
    if main == "subject":
        source = dataset.subject[name].source
    elif clips in dataset.motion[name].sources:
        source = dataset.motion[name].sources[clips]
    else:
        problems.append(f"motion.{name}.sources: has no {clips}")
        return {}
    own = recipe["data"][main]["source"]
    table = _inside(recipe, own, source, problems, f"{main}.{name}")
    for stream_name in _alike(recipe["data"], main):
        stream, change = recipe["data"][stream_name], {"source": source}
        if stream.get("prompt") == recipe["data"][main].get("prompt"):
            change |= _caption(stream, source, dataset.caption_of(getattr(dataset, main)[name]))
        table = overlay(table, {"data": {stream_name: change}})
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
