"""What each run of a grid has come to: its state, why it failed, and all its numbers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import Factory, evolve, frozen

from jtcore.errors import JtError
from jtcore.grids.grid import Grid, Trial
from jtcore.grids.state import State, read_failure, state_of
from jtcore.pages.contents import EVALUATION
from jtcore.run import read_json

Numbers = Mapping[str, float]  # of one run, by name
Summary = Mapping[str, Mapping[str, Any]]  # of one model: by metric its mean, and of what
SECONDS = "seconds"


@frozen(eq=False)
class Reading:
    """One run."""

    trial: Trial
    folder: Path
    state: State
    problems: tuple[str, ...] = ()  # why it failed
    kind: str = ""  # of failure
    at: str = ""  # when it failed
    measures: Numbers = Factory(dict)  # changes of held-out losses, and metrics of samples
    details: Numbers = Factory(dict)  # what adapters say of themselves
    costs: Numbers = Factory(dict)  # what the run took, which no other time is the same
    base: Summary = Factory(dict)  # metrics of the base model's samples
    better: Mapping[str, str] = Factory(dict)  # "higher" or "lower", by metric
    samples: tuple[Mapping[str, Any], ...] = ()

    @property
    def numbers(self) -> Numbers:
        """What a run is compared by."""
        return {**self.measures, **self.details}

    @property
    def change(self) -> Numbers:
        """Of metrics: how far the adapted model is from the base model."""
        return {
            name: value - self.base[name]["mean"]
            for name, value in self.measures.items()
            if name in self.base
        }


def brief_name(name: str) -> str:
    """ "steadiness" says as much as "steadiness.steadiness"."""
    metric, _, value = name.partition(".")
    return metric if metric == value else name


def read_runs(folder: Path, grid: Grid) -> list[Reading]:
    """Every run of a grid, in order. One whose files are damaged has failed."""
    return [_read_run(folder / trial.folder, trial) for trial in grid.trials]


def _read_run(folder: Path, trial: Trial) -> Reading:
    try:
        found = Reading(trial, folder, state_of(folder))
        if found.state == "failed" and (failure := read_failure(folder)):
            found = evolve(found, problems=failure.problems, kind=failure.kind, at=failure.at)
        return _measured(found) if found.state == "finished" else found
    except JtError as error:
        return Reading(trial, folder, "failed", error.problems, "error")
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"{folder}: its metrics are damaged: {type(error).__name__} {error}"
        return Reading(trial, folder, "failed", (problem,), "error")


def _measured(reading: Reading) -> Reading:
    results = read_json(reading.folder / "metrics.json") or {}
    evaluation = read_json(reading.folder / EVALUATION) or {}
    adapted, base = (
        {**_evaluated(evaluation, model), **results.get("metrics", {}).get(model, {})}
        for model in ("adapted", "base")
    )
    return evolve(
        reading,
        measures=_losses(results) | {name: value["mean"] for name, value in adapted.items()},
        details=dict(_details(results)),
        costs=dict(_costs(reading.folder)),
        base=base,
        better={name: b for name in adapted if (b := _better(evaluation, name))},
        samples=tuple(results.get("samples", ())),
    )


def _evaluated(evaluation: Mapping[str, Any], model: str) -> Summary:
    """What `jt-eval` has measured of a run, as the run's own metrics are told."""
    return {
        name: {"mean": value["mean"]}
        for name, value in evaluation.get("summary", {}).get(model, {}).items()
    }


def _better(evaluation: Mapping[str, Any], name: str) -> str | None:
    return evaluation.get("metrics", {}).get(name.split(".")[0], {}).get("better")


def _losses(results: Mapping[str, Any]) -> dict[str, float]:
    rows = results.get("validation", {}).items()
    return {f"{name} loss change": row["change"] for name, row in rows}


def _details(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, row in results.get("validation", {}).items():
        for key, value in row.get("adapters", {}).items():
            yield f"{name} {key}", value


def _costs(folder: Path) -> Iterator[tuple[str, float]]:
    result = read_json(folder / "result.json") or {}
    if SECONDS in result:
        yield SECONDS, result[SECONDS]
    for where, count in result.get("peak_bytes", {}).items():
        yield f"{where} GiB", round(count / 2**30, 3)
