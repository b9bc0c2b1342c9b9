"""What is probed: prompts of four kinds, and what is asked of them."""

import os
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

from attrs import Factory, field, frozen
from attrs.validators import min_len, optional

from jtcore.data import captions
from jtcore.errors import JtError
from jtcore.plugins import BUILT_IN
from jtcore.recipe import Recipe
from jtcore.structure import Component, component, lines
from jtcore.tables import Table, overlay, parse_toml

Kind = Literal["subject", "motion", "both", "neither"]
KINDS: tuple[Kind, ...] = ("subject", "motion", "both", "neither")
SHIPPED = "probes/default.toml"  # among the shipped recipes: what all files are laid over
BESIDE = "probes.toml"  # what a data set may bring beside its folders


@frozen
class Prompts:
    """Of the learned subject, the learned motion, both and neither; the i-th of each belong
    together: they ask for the same scene otherwise. Where one has fewer, it begins again"""

    subject: tuple[str, ...] = lines(validator=min_len(1))
    motion: tuple[str, ...] = lines(validator=min_len(1))
    both: tuple[str, ...] = lines(validator=min_len(1))
    neither: tuple[str, ...] = lines(validator=min_len(1))

    @property
    def count(self) -> int:
        """Of those that belong together."""
        return max(len(getattr(self, kind)) for kind in KINDS)

    def of(self, kind: Kind, index: int) -> str:
        own = getattr(self, kind)
        return own[index % len(own)]


@frozen
class Question:
    """What a difference of metrics answers

    asks: the question
    prompts: the kind of prompts whose videos are looked at
    than: another kind, whose videos of the same model they are held against; unless said, those
        of the base model and the same prompts
    values: patterns of NAME.VALUE
    yes: which side of 0 a difference lies on where the answer is yes
    """

    asks: str
    prompts: Kind
    values: tuple[str, ...] = field(validator=min_len(1))
    yes: Literal["above", "below"]
    than: Kind | None = None


@frozen
class Probes:
    """A file of probes

    seeds: those of the run, unless said
    metric: besides those of the run
    """

    prompts: Prompts
    seeds: tuple[int, ...] | None = field(default=None, validator=optional(min_len(1)))
    metric: Mapping[str, Component] = component("metrics", factory=dict)
    question: Mapping[str, Question] = Factory(dict)
    title: str = ""


def probe_table(recipe: Recipe, began: Path, given: Path | None) -> tuple[Table, str]:
    """The table of the probes of a run that was started in the folder `began`, and where its
    prompts are from. Raises JtError."""
    below = shipped()
    found = given or _beside_data(recipe, began)
    above = parse_toml(found) if found else {}
    if "prompts" in above:
        return overlay(below, above), f"prompts of {found}"
    made = {"prompts": {kind: list(texts) for kind, texts in _of_recipe(recipe).items()}}
    return overlay(overlay(below, made), above), (
        "prompts: captions of the run's pictures and of its clips, its own prompts, and none at"
        " all; a file with [prompts] (--probes) can ask for the same scenes of all four kinds"
    )


def shipped() -> Table:
    """What every file of probes is laid over: questions, and metrics without weights."""
    return parse_toml(Path(str(files(f"{BUILT_IN}.recipes"))) / SHIPPED)


def _beside_data(recipe: Recipe, began: Path) -> Path | None:
    """What the data set that a run was trained on has beside its folders."""
    folders = dict.fromkeys((began / source).parent for source in _sources(recipe))
    return next((path for each in folders if os.path.isfile(path := each / BESIDE)), None)  # noqa: PTH113 - of whatever a source is


def _sources(recipe: Recipe) -> Iterator[str]:
    for branch in recipe.branches.values():
        yield from (recipe.data[name].source for name in branch.data)


def _of_recipe(recipe: Recipe) -> dict[Kind, list[str]]:
    """Prompts as far as a recipe has any. Raises JtError where it lacks pictures, clips or
    prompts."""
    used = dict.fromkeys(name for b in recipe.branches.values() for name in b.data)
    own: dict[Kind, dict[str, None]] = {"subject": {}, "motion": {}}
    for name in used:
        kind: Kind = "subject" if recipe.data[name].medium == "image" else "motion"
        own[kind] |= dict.fromkeys(captions(recipe.data[name]))
    what = {"subject": "pictures", "motion": "clips"}
    lacking = [what[kind] for kind, texts in own.items() if not texts]
    if recipe.sample is None:
        lacking.append("prompts")
    if lacking:
        raise JtError(
            f"the run has no {' and no '.join(lacking)} to make prompts of; give --probes FILE with"
            f" [prompts] {', '.join(KINDS)}"
        )
    both = list(recipe.sample.prompts)
    most = len(both)
    return {
        "subject": list(own["subject"])[:most],
        "motion": list(own["motion"])[:most],
        "both": both,
        "neither": [""],
    }
