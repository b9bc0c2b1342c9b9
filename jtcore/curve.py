"""The learning curve: held-out losses while training goes on.

Noise and times are the same each time, so that the curve moves with the weights alone; the times
are quantiles of the schedule, for at a few drawn ones a loss is mostly about where they fell.
Training cannot tell: it draws what it would have drawn.
"""

from collections.abc import Mapping
from typing import Any

from attrs import Factory, frozen
from torch import Tensor

from jtcore.model import Model
from jtcore.noise import At, quantiles
from jtcore.recipe import Recipe
from jtcore.run import Run
from jtcore.shared import Shared
from jtcore.stream import Stream
from jtcore.types import Step
from jtcore.validation import base_losses, compare, losses

FILE = "validation.json"


@frozen(eq=False)
class Curve:
    """That of one run."""

    recipe: Recipe
    run: Run
    model: Model
    streams: Mapping[str, Stream]
    scales: Mapping[str, float]  # of all adapters, by name
    records: list[dict[str, Any]]  # what is in the file
    shared: Shared | None = None
    base: dict[str, Tensor] = Factory(dict)  # (files, draws), by stream: it never changes

    @classmethod
    def begin(
        cls,
        recipe: Recipe,
        run: Run,
        model: Model,
        streams: Mapping[str, Stream],
        scales: Mapping[str, float],
        done: int,
        shared: Shared | None = None,
    ) -> "Curve":
        """With what is on disk of the first `done` steps; a resumed run takes the others again."""
        there = run.read_json(FILE) or []
        before = [record for record in there if record["step"] <= done]
        return cls(recipe, run, model, streams, scales, before, shared)

    def due(self, step: Step) -> bool:
        return (step.number + 1) % self.recipe.validation.every == 0

    def after(self, step: Step) -> dict[str, float]:
        """Validate the weights as they are after a step, and write it down. Returns what is worth
        plotting, by path: by stream, and by those branches that have not all adapters on."""
        with self.model.at_rest():
            found = {name: self._of(name, step) for name in self.recipe.validation.data}
        self.records.append({"step": step.number + 1, "stage": step.stage, "losses": found})
        self.run.write_json(FILE, self.records)
        scalars = {}
        for name, of_all in found.items():
            each = {"": of_all} | {f".{b}": row for b, row in of_all["branches"].items()}
            for branch, row in each.items():
                here = f"validation.{name}{branch}"
                scalars |= {f"{here}.{key}": row[key] for key in ("adapted", "relative_change")}
        return scalars

    def _of(self, name: str, step: Step) -> dict[str, Any]:
        """Of one stream: with all adapters on, and with those of each branch that are not all."""
        branches = {
            branch: self._row(name, scales) for branch, scales in self._parted(name, step).items()
        }
        return {**self._row(name, self.scales), "branches": branches}

    def _parted(self, name: str, step: Step) -> dict[str, dict[str, float]]:
        """Scales of the stage's branches on the stream's medium, unless they are those of all."""
        data, medium = self.recipe.data, self.recipe.data[name].medium
        parted = {
            branch_name: dict.fromkeys(branch.adapters, 1.0)
            for branch_name, branch in self.recipe.stage[step.stage].branch.items()
            if any(branch.medium(data[each]) == medium for each in branch.data)
        }
        return {branch: scales for branch, scales in parted.items() if scales != self.scales}

    def _row(self, name: str, scales: Mapping[str, float]) -> dict[str, Any]:
        base, adapted = self._base(name), self._losses(name, scales)
        row = compare(base, adapted)
        return {
            **row,
            "relative_change": row["change"] / row["base"],
            "times": [draw.place for draw in self._draws],
            "at_times": {"base": base.mean(0).tolist(), "adapted": adapted.mean(0).tolist()},
        }

    def _base(self, name: str) -> Tensor:  # (files, draws)
        if name not in self.base:
            seed, stream = self.recipe.validation.seed, self.streams[name]
            self.base[name] = base_losses(stream, seed, self._draws, self.model, self.shared)
        return self.base[name]

    def _losses(self, name: str, scales: Mapping[str, float]) -> Tensor:  # (files, draws)
        seed = self.recipe.validation.seed
        return losses(self.streams[name], seed, self._draws, self.model, scales)[0]

    @property
    def _draws(self) -> tuple[At, ...]:
        return quantiles(self.recipe.validation.draws)
