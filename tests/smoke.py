"""Run every shipped recipe and ablation for two steps, as a user would: `make smoke`."""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from checkpoints.shrinking import settings

from jtcore.ablation import variants
from jtcore.tables import read_table
from jtplugins.pocket.draw import draw

ROOT = Path(__file__).parent.parent
COMMANDS = Path(sys.executable).parent


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
    for name, above in table.get("variant", {}).items():
        if "base" in above:
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
    seeds = ["seeds=[0]"] if "seeds" in table else []
    settings = [*below, *seeds, *steps, *prompts, "sample.steps=2", "sample.seeds=[0]"]
    return [*dict.fromkeys(settings)]


def first_line(path: str) -> str:
    return (ROOT / path).read_text().splitlines()[0]


def main() -> int:
    recipes = sorted([*ROOT.glob("recipes/*.toml"), *ROOT.glob("ablations/*.toml")])
    with tempfile.TemporaryDirectory() as folder:
        failed = [recipe for recipe in recipes if not runs(recipe, Path(folder))]
    return 1 if failed else 0


def runs(recipe: Path, folder: Path) -> bool:
    out = folder / recipe.parent.name / recipe.stem
    command = [COMMANDS / "jt-run", recipe, "--quiet", "--out", out]
    for setting in shrunk(recipe, folder):
        command += ["--set", setting]
    status = subprocess.run(command, cwd=ROOT).returncode
    told = "ok" if status == 0 else f"exit status {status}"
    print(f"{recipe.relative_to(ROOT)}: {told}", flush=True)
    return status == 0


if __name__ == "__main__":
    sys.exit(main())
