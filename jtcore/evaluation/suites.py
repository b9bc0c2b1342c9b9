"""Suites: metrics by name, shipped or of one's own, and how a command changes them."""

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
from attrs import Factory, frozen

from jtcore.errors import JtError
from jtcore.evaluation.identity import REFERENCES
from jtcore.hints import is_optional, option_types, without_none
from jtcore.near import did_you_mean
from jtcore.plugins import BUILT_IN, Plugins
from jtcore.structure import Component, component, structure
from jtcore.tables import Table, change, parse_toml

FOLDER = "suites"  # among the shipped recipes


@frozen
class Suite:
    """What is measured

    average_score: factors by metric and value; --average-score is the plain mean of their products
    """

    title: str = ""
    metric: Mapping[str, Component] = component("metrics", factory=dict)
    average_score: Mapping[str, Mapping[str, float]] = Factory(dict)

    @property
    def average_of(self) -> dict[str, float]:
        """Factors by NAME.VALUE."""
        return {
            f"{name}.{value}": factor
            for name, factors in self.average_score.items()
            for value, factor in factors.items()
        }


def read_suite(argument: str) -> Table:
    """The table of a file, or of a shipped suite by its name. Raises JtError."""
    path = Path(argument)
    if os.path.isfile(path):  # noqa: PTH113 - pathlib raises where a name is too long
        return parse_toml(path)
    known = shipped()
    if argument in known:
        return parse_toml(known[argument])
    raise JtError(
        f"--suite: no such file, nor a shipped suite: {argument!r}; {did_you_mean(argument, known)}"
    )


def shipped() -> dict[str, Path]:
    """Every suite's file, by its name."""
    folder = Path(str(files(f"{BUILT_IN}.recipes"))) / FOLDER
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def of_run(table: Mapping[str, Any], folder: Path) -> Table:
    """The metrics of a run's resolved recipe; its paths begin where it was started, in `folder`."""
    metrics = {
        name: {key: _absolute(value, folder) for key, value in metric.items()}
        for name, metric in table.get("metric", {}).items()
    }
    return {"title": table.get("title", ""), "metric": metrics}


def build_suite(
    table: Mapping[str, Any], settings: Sequence[str], only: Sequence[str], plugins: Plugins
) -> Suite:
    """A suite as `--set` and `--only` change it. Raises JtError."""
    suite = structure(Suite, change(table, settings), plugins)
    if unknown := [name for name in only if name not in suite.metric]:
        raise JtError(
            f"--only: unknown metric {name!r}; {did_you_mean(name, suite.metric)}"
            for name in unknown
        )
    if not suite.metric:
        raise JtError("there is no metric; name some with --suite, such as --suite general")
    chosen = {name: metric for name, metric in suite.metric.items() if not only or name in only}
    return attrs.evolve(suite, metric=chosen)


def with_models(metrics: Mapping[str, Component], folder: Path) -> dict[str, Component]:
    """The metrics, with what lies in a folder of downloads in place of what they would fetch: for
    `openai/clip-vit-base-patch32`, `folder/clip-vit-base-patch32`. Raises JtError."""
    if not folder.is_dir():
        raise JtError(f"--models: {str(folder)!r} is not a folder")
    return {name: _with_models(metric, folder) for name, metric in metrics.items()}


def _with_models(metric: Component, folder: Path) -> Component:
    hints = option_types(type(metric.spec))
    found = {}
    for name, hint in hints.items():
        value = getattr(metric.spec, name)
        plain = (without_none(hint) if is_optional(hint) else hint) is str
        if not plain or name in REFERENCES or not value or os.path.exists(value):  # noqa: PTH110
            continue
        local = folder / Path(value).name
        if _looks_downloaded(value) and local.exists():
            found[name] = str(local)
    return Component(metric.kind, attrs.evolve(metric.spec, **found)) if found else metric


def _looks_downloaded(value: str) -> bool:
    """A hub id, or the name of a file; a mere word is some other option."""
    return "/" in value or bool(Path(value).suffix)


def _absolute(value: Any, folder: Path) -> Any:
    is_path = isinstance(value, str) and value and os.path.exists(folder / value)  # noqa: PTH110
    return str(folder / value) if is_path else value
