"""Run every shipped recipe and ablation for two steps, as a user would: `make smoke`."""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMANDS = Path(sys.executable).parent


def small(recipe: Path) -> list[str]:
    """Settings that shrink whatever stages, seeds and prompts the recipe, its base and its variants
    have."""
    table = tomllib.loads(recipe.read_text())
    below = small((recipe.parent / table["base"]).resolve()) if "base" in table else []
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
    failed = []
    recipes = sorted([*ROOT.glob("recipes/*.toml"), *ROOT.glob("ablations/*.toml")])
    for recipe in recipes:
        with tempfile.TemporaryDirectory() as folder:
            command = [COMMANDS / "jt-run", recipe, "--quiet", "--out", Path(folder) / "run"]
            for setting in small(recipe):
                command += ["--set", setting]
            status = subprocess.run(command, cwd=ROOT).returncode
        print(f"{recipe.relative_to(ROOT)}: {'ok' if status == 0 else f'exit status {status}'}")
        failed += [recipe] if status else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
