"""Check, run for two steps and sample every shipped recipe and ablation: `make smoke`."""

import gc
import json
import os
import sys
import tempfile
import tomllib
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from checkpoints.shrinking import settings

from jtcore import cli
from jtcore.grids.grid import variants
from jtcore.tables import parse_toml, read_table
from jtplugins.pocket.draw import draw

ROOT = Path(__file__).parent.parent
MODELS = (  # that recipes load
    *("AutoencoderKL", "UNet3DConditionModel", "DDIMScheduler"),
    *("AutoencoderKLCogVideoX", "CogVideoXTransformer3DModel", "CogVideoXDDIMScheduler"),
    *("AutoencoderKLWan", "WanTransformer3DModel", "UniPCMultistepScheduler"),
    *("CLIPTextModel", "CLIPTokenizer", "T5EncoderModel", "T5TokenizerFast", "UMT5EncoderModel"),
)


def shrunk(recipe: Path, folder: Path) -> list[str]:
    """`--set` values with which it runs in seconds; real weights get a tiny checkpoint."""
    if any(each["backbone"]["kind"] == "pocket" for each in variants(read_table(recipe)).values()):
        return small(recipe)
    if not (folder / "task").exists():
        draw(folder / "task", "wug", "eightwise", pictures=2, videos=2)
    return settings(recipe, folder)


def small(recipe: Path) -> list[str]:
    """Settings that shrink whatever stages, seeds and prompts the recipe, its base and its variants
    have."""
    table = tomllib.loads(recipe.read_text())
    below = small((recipe.parent / table["base"]).resolve()) if "base" in table else []
    taken = [f"stage.{name}." for name, stage in table.get("stage", {}).items() if stage is False]
    below = [setting for setting in below if not setting.startswith(tuple(taken))]
    known = [name for name, above in table.get("variant", {}).items() if above.keys() == {"base"}]
    below += [f"variant.{name}=false" for name in known[1:]]  # they are run as recipes
    for name, above in table.get("variant", {}).items():
        if "base" in above and name not in known[1:]:
            base = small((recipe.parent / above["base"]).resolve())
            below += [f"variant.{name}.{setting}" for setting in base]
    tables = {"": table}
    tables |= {f"variant.{name}.": above for name, above in table.get("variant", {}).items()}
    steps = [
        f"{place}stage.{name}.steps=2"
        for place, each in tables.items()
        for name, stage in each.get("stage", {}).items()
        if stage
    ]
    prompts = [
        f"{place}sample.prompts={json.dumps([first_line(each['sample']['prompts'])])}"
        for place, each in tables.items()
        if isinstance(each.get("sample", {}).get("prompts"), str)
    ]
    fewer = ["seeds=[0]"] if "seeds" in table else []
    fewer += ["validation.draws=1"] if "validation" in table else []
    settings = [*below, *fewer, *steps, *prompts, "sample.steps=2", "sample.seeds=[0]"]
    return [*dict.fromkeys(settings)]


def first_line(path: str) -> str:
    return (ROOT / path).read_text().splitlines()[0]


def main() -> int:
    recipes = sorted([*ROOT.glob("recipes/*.toml"), *ROOT.glob("ablations/*.toml")])
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
    settings = [part for setting in shrunk(recipe, own) for part in ("--set", setting)]
    if status := cli.run([str(recipe), "--check", *settings]):
        return f"--check: exit status {status}"
    if status := cli.run([str(recipe), "--quiet", "--out", str(out), *settings]):
        return f"exit status {status}"
    run = min([out, *out.glob("*")], key=lambda each: not (each / "adapters").is_dir())
    prompt = parse_toml(run / "recipe.resolved.toml")["sample"]["prompts"][0]
    again = ["--prompt", prompt, "--quiet", "--out", str(own / "again")]
    status = cli.sample([str(run), *again])
    return f"jt-sample: exit status {status}" if status else ""


if __name__ == "__main__":
    sys.exit(main())
