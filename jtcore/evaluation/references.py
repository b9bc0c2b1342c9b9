"""What videos are compared with: the subject's pictures and the motion's clips."""

from collections.abc import Mapping
from contextlib import suppress

import attrs
from attrs import frozen

from jtcore.data import source_files
from jtcore.errors import JtError
from jtcore.evaluation.identity import REFERENCES
from jtcore.recipe import Recipe
from jtcore.structure import Component

MEDIA = {"subject": "image", "motion": "video"}


@frozen
class References:
    """Each a file, a folder or a pattern; None where there is none."""

    subject: str | None = None
    motion: str | None = None

    def over(self, below: "References") -> "References":
        """These, and those of `below` where there are none."""
        return References(self.subject or below.subject, self.motion or below.motion)

    @property
    def named(self) -> dict[str, str]:
        """Those that there are."""
        return {name: place for name, place in attrs.asdict(self).items() if place is not None}

    def files(self) -> dict[str, list[str]]:
        """Absolute paths of their files; what is not there is left out."""
        found: dict[str, list[str]] = {name: [] for name in REFERENCES}
        for name, place in self.named.items():
            with suppress(JtError):  # data of a run may be gone: metrics that need it say so
                found[name] = [str(path.absolute()) for path in source_files(place)]
        return found

    def check(self) -> None:
        """Raises JtError where the command line names what is not there."""
        for name, place in self.named.items():
            try:
                source_files(place)
            except JtError as error:
                raise JtError(f"--{name}: {problem}" for problem in error.problems) from error


def filled(metrics: Mapping[str, Component], references: References) -> dict[str, Component]:
    """The metrics, with these references where they have the option and it says none."""
    return {name: _filled(metric, references) for name, metric in metrics.items()}


def metrics_of(recipe: Recipe) -> dict[str, Component]:
    """A recipe's metrics, which are told what it trains on."""
    return filled(recipe.metric, trained_on(recipe))


def trained_on(recipe: Recipe) -> References:
    """The data `subject` and `motion`; under other names, the only pictures or clips there are."""
    return References(**{name: _source(recipe, name) for name in REFERENCES})


def _filled(metric: Component, references: References) -> Component:
    options = attrs.fields_dict(type(metric.spec))
    wanting = {
        name: value
        for name in REFERENCES
        if name in options
        and getattr(metric.spec, name) is None
        and (value := getattr(references, name)) is not None
    }
    return Component(metric.kind, attrs.evolve(metric.spec, **wanting)) if wanting else metric


def _source(recipe: Recipe, name: str) -> str | None:
    streams = {data for branch in recipe.branches.values() for data in branch.data}
    found = {
        stream: recipe.data[stream].source
        for stream in sorted(streams)
        if recipe.data[stream].medium == MEDIA[name]
    }
    if name in found:
        return found[name]
    return next(iter(found.values())) if len(found) == 1 else None
