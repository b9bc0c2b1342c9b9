"""Ablations: a base recipe and variants laid over it, one run for each variant and seed."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from attrs import evolve, frozen

from jtcore.errors import JtError
from jtcore.plugins import Plugins
from jtcore.recipe import Recipe
from jtcore.run import fill_folder, new_folder, read_json, write_json
from jtcore.structure import INTEGERS, name_problems
from jtcore.tables import Table, overlay

INDEX = "ablation.json"


@frozen
class Trial:
    """One run of an ablation: a variant, and the recipe's seed where the ablation sets it."""

    variant: str
    seed: int | None = None

    @property
    def folder(self) -> str:
        return self.variant if self.seed is None else f"{self.variant}-seed{self.seed}"


def variants(table: Table) -> dict[str | None, Table]:
    """Each variant's table by name; a plain recipe is one variant without a name."""
    table = dict(table)
    overlays, seeds = table.pop("variant", None), table.pop("seeds", None)
    if overlays is None and seeds is not None:
        raise JtError("seeds: expected tables [variant.NAME] beside it; a recipe has a seed")
    if overlays is None:
        return {None: table}
    if not isinstance(overlays, Mapping) or not overlays:
        raise JtError("variant: expected tables [variant.NAME]")
    problems = [*name_problems(overlays, "variant"), *_seed_problems(seeds)]
    for name, above in overlays.items():
        if not isinstance(above, Mapping):
            problems.append(f"variant.{name}: expected a table")
        elif seeds is not None and "seed" in above:
            problems.append(f"variant.{name}.seed: the ablation's seeds take its place; remove one")
        elif not isinstance(above.get("base", {}), Mapping):
            problems.append(f"variant.{name}.base: can be named in the ablation's file alone")
    if problems:
        raise JtError(problems)
    return {name: _laid_over(table, above) for name, above in overlays.items()}


def _laid_over(table: Table, above: Table) -> Table:
    """A variant on what all have in common, and that on the variant's own base."""
    own = dict(above)
    return overlay(overlay(own.pop("base", {}), table), own)


def trials(table: Table) -> list[Trial]:
    """Every variant with every seed, in the order of the runs; none where it is no ablation.

    Seed by seed: where it stops early, variants have been run with the same seeds.
    """
    pairs = product(table.get("seeds", [None]), table.get("variant", ()))
    return [Trial(variant, seed) for seed, variant in pairs]


def create(
    folder: Path,
    path: Path,
    settings: Sequence[str],
    recipes: Mapping[str, Recipe],
    plugins: Mapping[str, Plugins],
    wanted: Sequence[Trial],
) -> None:
    """Make the folder of an ablation with a run directory for each trial, whole at once.

    Raises FolderExistsError where it is there already.
    """
    with new_folder(folder) as aside:
        for trial in wanted:
            recipe = recipes[trial.variant]
            if trial.seed is not None:
                recipe = evolve(recipe, seed=trial.seed)
            (aside / trial.folder).mkdir()
            fill_folder(aside / trial.folder, path, settings, recipe, plugins[trial.variant])
        write_json(aside / INDEX, _index(wanted))


def read_trials(folder: Path) -> list[Trial]:
    """The trials of an ablation's folder in order; none where it is not one."""
    index = read_json(folder / INDEX) or {"runs": []}
    if "variants" in index:
        return [Trial(name) for name in index["variants"]]
    return [Trial(run["variant"], run["seed"]) for run in index["runs"]]


def run_folders(folder: Path) -> list[Path]:
    """The run directories of an ablation in order; none where it is not one."""
    return [folder / trial.folder for trial in read_trials(folder)]


def _index(wanted: Sequence[Trial]) -> dict[str, list]:
    if all(trial.seed is None for trial in wanted):
        return {"variants": [trial.variant for trial in wanted]}
    return {
        "runs": [
            {"folder": trial.folder, "variant": trial.variant, "seed": trial.seed}
            for trial in wanted
        ]
    }


def _seed_problems(seeds: object) -> Iterator[str]:
    if seeds is None:
        return
    whole = isinstance(seeds, list) and all(type(s) is int and s in INTEGERS for s in seeds)
    if not whole or not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        yield f"seeds: expected a list of different whole numbers from 0, got {seeds!r}"
