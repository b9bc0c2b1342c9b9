"""Presets: settings by name, such as those that fit a card, laid over any recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jtcore.errors import JtError
from jtcore.near import nearest
from jtcore.plugins import BUILT_IN
from jtcore.tables import parse_toml

FOLDER = "presets"  # among the shipped recipes


def settings(names: Sequence[str]) -> list[str]:
    """The values that presets set, one preset after another, as `--set` takes them. Raises JtError
    where there is no such preset."""
    known = shipped()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise JtError(f"unknown preset {name!r}; {_hint(name, known)}" for name in unknown)
    return [setting for name in names for setting in _settings(parse_toml(known[name]))]


def shipped() -> dict[str, Path]:
    """Every preset's file, by its name."""
    folder = Path(str(files(f"{BUILT_IN}.recipes"))) / FOLDER
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def summary(path: Path) -> str:
    """What a preset's header says first: "Exact: ..." or "Approximate: ..."."""
    lines = [line.removeprefix("# ") for line in path.read_text(encoding="utf-8").splitlines()]
    return " ".join(lines).partition(". ")[0] + "."


def _hint(name: str, known: Mapping[str, Path]) -> str:
    near = nearest(name, known)
    return f"{near + '; ' if near else ''}there are {', '.join(known)}"


def _settings(table: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{place}{key}.")
        else:
            yield f"{place}{key}={json.dumps(value)}"
