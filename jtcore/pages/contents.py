"""What a page of results shows, gathered from what runs and evaluations left on disk."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import Factory, evolve, frozen

from jtcore.errors import JtError
from jtcore.evaluation.estimates import Row, compare, summarise
from jtcore.pages.curves import Curve, read_curves

EVALUATION = "evaluation/evaluation.json"  # of a run
FACTS = "report.json"  # of a run: what its page says that is nowhere else


@frozen
class Shot:
    """A generated video."""

    file: Path
    model: str
    prompt: str
    seed: int | None
    values: Mapping[str, float]  # by NAME.VALUE


@frozen
class Numbers:
    """What was measured, as in evaluation.json."""

    title: str
    metrics: Mapping[str, Mapping[str, Any]]  # their identities, by name
    summary: Mapping[str, Mapping[str, Mapping[str, float]]]  # by model and NAME.VALUE
    paired: Sequence[Mapping[str, Any]]
    average: Mapping[str, Any] | None = None  # of means, with what is wrong with it

    @property
    def missing(self) -> dict[str, str]:
        return {name: told["missing"] for name, told in self.metrics.items() if told.get("missing")}

    def better(self, value: str) -> str | None:
        return self.metrics.get(value.split(".")[0], {}).get("better")


@frozen
class Trained:
    """A run as a page shows it: its numbers of training, and its recipe as resolved."""

    facts: str
    command: str
    recipe: str
    results: Mapping[str, Any]  # its metrics.json
    curves: Mapping[str, Curve]


@frozen
class Contents:
    """All that a page shows."""

    title: str
    told: Sequence[str]  # of how it came to be
    shots: Sequence[Shot]
    numbers: Sequence[Numbers]
    references: Mapping[Path, str]  # file -> caption
    framed: bool  # references as training sees them, not the files
    runs: Mapping[str, Trained] = Factory(dict)  # by name; "" is the only one
    enlarged: bool = False  # the videos, each pixel to a square

    @property
    def models(self) -> list[str]:
        """In the order in which they have come."""
        summaries = (model for each in self.numbers for model in each.summary)
        return list(dict.fromkeys([*(shot.model for shot in self.shots), *summaries]))


def of_run(folder: Path) -> Contents:
    """A run, and its evaluation where it has one. Raises JtError where a file is damaged."""
    trained, facts = read_run(folder), _read(folder / FACTS) or {}
    results, evaluation = trained.results, _read(folder / EVALUATION)
    own = [
        Shot(folder / "samples" / e["file"], e["model"], e["prompt"], e["seed"], e["metrics"])
        for e in results.get("samples", [])
    ]
    numbers, shots = [_own_numbers(own)], own
    if evaluation:
        numbers = [_numbers(evaluation), _own_numbers(_without(own, evaluation["videos"]))]
        shots = _merged(list(_shots(evaluation, (folder / EVALUATION).parent)), own)
    files = facts.get("references", {})
    return Contents(
        title=facts.get("title") or folder.name,
        told=[trained.facts, trained.command],
        shots=shots,
        numbers=[each for each in numbers if each.summary or each.metrics],
        references={folder / "samples" / file: caption for file, caption in files.items()},
        framed=True,
        runs={"": trained},
        enlarged=facts.get("enlarged", False),
    )


def of_evaluation(file: Path, runs: Mapping[str, Path]) -> Contents:
    """An evaluation.json, and the runs that it is of. Raises JtError where a file is damaged."""
    evaluation = _read(file)
    if evaluation is None:
        raise JtError(f"{file}: there is no such file")
    facts = [_read(folder / FACTS) or {} for folder in runs.values()]
    return Contents(
        title=evaluation.get("title") or file.parent.name,
        told=[f"Evaluated {evaluation['created']}", " ".join(evaluation["command"])],
        shots=list(_shots(evaluation, file.parent)),
        numbers=[_numbers(evaluation)],
        references=dict(_references(evaluation)),
        framed=False,
        runs={name: read_run(folder) for name, folder in runs.items()},
        enlarged=any(each.get("enlarged") for each in facts),
    )


def read_run(folder: Path) -> Trained:
    """What a run left that is not its videos."""
    recipe, facts = folder / "recipe.resolved.toml", _read(folder / FACTS) or {}
    return Trained(
        facts.get("facts", ""),
        facts.get("command", ""),
        recipe.read_text() if recipe.is_file() else "",
        _read(folder / "metrics.json") or {},
        read_curves(folder),
    )


def _read(path: Path) -> Any | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise JtError(f"{path}: damaged: {error}") from error


def _shots(evaluation: Mapping[str, Any], folder: Path) -> Iterator[Shot]:
    for each in evaluation["videos"]:
        file, values = folder / each["file"], each.get("values", {})  # of two absolute, the second
        yield Shot(file, each["model"], each["prompt"], each.get("seed"), values)


def _without(own: Sequence[Shot], evaluated: Sequence[Mapping[str, Any]]) -> list[Shot]:
    """A run's videos with the values that its evaluation does not have, or has otherwise."""
    known = {(v["model"], v["prompt"], v["seed"], *each) for v in evaluated for each in _items(v)}
    return [
        evolve(
            shot,
            values={
                name: value
                for name, value in shot.values.items()
                if (shot.model, shot.prompt, shot.seed, name, value) not in known
            },
        )
        for shot in own
    ]


def _items(video: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield from video.get("values", {}).items()


def _merged(shots: Sequence[Shot], own: Sequence[Shot]) -> list[Shot]:
    """An evaluation's videos, and those of the run that it did not have."""
    had = {(shot.model, shot.prompt, shot.seed) for shot in shots}
    return [*shots, *(shot for shot in own if (shot.model, shot.prompt, shot.seed) not in had)]


def _numbers(evaluation: Mapping[str, Any]) -> Numbers:
    return Numbers(
        "Metrics",
        evaluation["metrics"],
        evaluation["summary"],
        evaluation["paired"],
        evaluation.get("average_score"),
    )


def _own_numbers(shots: Sequence[Shot]) -> Numbers:
    """What the run measured itself."""
    rows = [Row(s.model, s.prompt, s.seed, s.values) for s in shots if s.values]
    return Numbers("Metrics that the run measured", {}, summarise(rows), compare(rows, {}))


def _references(evaluation: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for name, count in (("motion", 4), ("subject", 8)):
        for file in evaluation.get("references", {}).get(name, [])[:count]:
            yield Path(file), f"{name}: {Path(file).name}"
