"""Check, run for two steps and sample every shipped recipe and grid: `make smoke`.

`python tests/smoke.py ablations/tasks_pocket ...` takes those that are named. Of a grid every run
is checked; one of each variant that is more than a recipe is done.
"""

import gc
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from attrs import frozen
from checkpoints.shrinking import checkpoint, settings_of

from jtcore import cli
from jtcore.grids.axes import VARIANT
from jtcore.grids.grid import Declared, Trial, run_folders, take_grid
from jtcore.tables import Table, find_recipe, parse_toml, read_table
from jtplugins.pocket.draw import draw

ROOT = Path(__file__).parent.parent
MODELS = (  # that recipes load
    *("AutoencoderKL", "UNet3DConditionModel", "DDIMScheduler"),
    *("AutoencoderKLCogVideoX", "CogVideoXTransformer3DModel", "CogVideoXDDIMScheduler"),
    *("AutoencoderKLWan", "WanTransformer3DModel", "UniPCMultistepScheduler"),
    *("CLIPTextModel", "CLIPTokenizer", "T5EncoderModel", "T5TokenizerFast", "UMT5EncoderModel"),
)


@frozen
class Shrunk:
    """`--set` values with which a recipe or grid runs in seconds."""

    settings: list[str]
    cuts: list[str] | None  # with which what is new of a grid is run; None where nothing is


def shrunk(recipe: Path, folder: Path) -> Shrunk:
    table = read_table(recipe)
    declared = take_grid(table, recipe)
    if declared is None:
        return Shrunk(smaller(table, folder), [])
    settings = ["launch.kind=here"]  # in this very process
    for trial in of_first_levels(declared):
        place = "" if trial.variant is None else f"variant.{trial.variant}."
        settings += [place + each for each in smaller(declared.recipe(trial), folder)]
    settings += [
        f"axes.{name}.{level}.backbone.weights={checkpoint(change['backbone']['weights'], folder)}"
        for name, level, change in named_levels(table)
        if "backbone" in change
    ]
    return Shrunk(settings, cuts(table))


def of_first_levels(declared: Declared) -> list[Trial]:
    """A run of each variant."""
    first = {name: levels[0] for name, levels in declared.grid.axes.items() if name != VARIANT}
    return [
        trial
        for trial in declared.grid.trials
        if all(trial.point[name] == label for name, label in first.items())
    ]


def cuts(table: Table) -> list[str] | None:
    """Every axis to its first level, and variants to those that are more than a recipe."""
    variants = table.get("variant", {})
    known = [name for name, above in variants.items() if above.keys() == {"base"}]
    if known and len(known) == len(variants):
        return None
    found = [f"variant.{name}=false" for name in known]
    if "seeds" in table:
        found.append(f"seeds={table['seeds'][:1]}")
    for name, levels in table.get("axes", {}).items():
        if isinstance(levels, list):
            found.append(f"axes.{name}={json.dumps(levels[:1])}")
        else:
            found += [f"axes.{name}.{level}=false" for level in list(levels)[1:]]
    return found


def named_levels(table: Table) -> list[tuple[str, str, Table]]:
    axes = table.get("axes", {}).items()
    tables = [(name, levels) for name, levels in axes if isinstance(levels, dict)]
    return [(name, level, change) for name, each in tables for level, change in each.items()]


def smaller(table: Table, folder: Path) -> list[str]:
    """Of one recipe; real weights get a tiny checkpoint."""
    if table["backbone"]["kind"] != "pocket":
        if not (folder / "task").exists():
            draw(folder / "task", "wug", "eightwise", pictures=2, videos=2)
        return settings_of(table, folder)
    prompts = table["sample"]["prompts"]
    first = first_line(prompts) if isinstance(prompts, str) else prompts[0]
    return [
        *(f"stage.{name}.steps=2" for name in table["stage"]),
        *(["validation.draws=1"] if "validation" in table else []),
        *(f"sample.prompts={json.dumps([first])}", "sample.steps=2", "sample.seeds=[0]"),
    ]


def first_line(path: str) -> str:
    return (ROOT / path).read_text().splitlines()[0]


def main(names: Sequence[str]) -> int:
    recipes = [find_recipe(name).resolve() for name in names]
    recipes = recipes or sorted([*ROOT.glob("recipes/*.toml"), *ROOT.glob("ablations/*.toml")])
    import_once()
    with tempfile.TemporaryDirectory() as folder, get_context("fork").Pool(2, None, (), 1) as pool:
        failed = 0
        jobs = pool.imap(partial(runs, folder=Path(folder)), recipes)
        for recipe, (problem, told) in zip(recipes, jobs, strict=True):
            print(f"{recipe.relative_to(ROOT)}: {problem or 'ok'}", flush=True)
            if problem:
                failed += 1
                print(told, flush=True)
    return 1 if failed else 0


def import_once() -> None:
    """What takes longer to import than a shrunk recipe to run; each recipe's process is a fork."""
    import diffusers
    import torch
    import transformers

    for name in MODELS:
        getattr(transformers if hasattr(transformers, name) else diffusers, name)
    torch.set_num_threads(1)
    gc.freeze()  # nobody looks for circles among what has been imported


def runs(recipe: Path, folder: Path) -> tuple[str, str]:
    """Check, run and sample again, in a process of its own: what went wrong, and what was said."""
    os.chdir(ROOT)
    log = folder / f"{recipe.parent.name}-{recipe.stem}.log"
    with log.open("w") as told:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
        problem = first_problem(recipe, folder)
        sys.stdout.flush()
    return problem, log.read_text()


def first_problem(recipe: Path, folder: Path) -> str:
    own = folder / recipe.parent.name / recipe.stem
    own.mkdir(parents=True)
    out = own / "run"
    found = shrunk(recipe, own)
    if status := cli.run([str(recipe), "--check", *as_options(found.settings)]):
        return f"--check: exit status {status}"
    if found.cuts is None:
        return ""
    options = as_options([*found.settings, *found.cuts])
    if status := cli.run([str(recipe), "--quiet", "--out", str(out), *options]):
        return f"exit status {status}"
    run = next(each for each in (out, *run_folders(out)) if (each / "adapters").is_dir())
    prompt = parse_toml(run / "recipe.resolved.toml")["sample"]["prompts"][0]
    again = ["--prompt", prompt, "--quiet", "--out", str(own / "again")]
    status = cli.sample([str(run), *again])
    return f"jt-sample: exit status {status}" if status else ""


def as_options(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
