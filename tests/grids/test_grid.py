"""A grid is a run for each variant and seed, and a table at the end."""

import csv
import json
from copy import deepcopy
from pathlib import Path

import pytest

from jtcore import JtError, cli
from jtcore.grids.grid import read_grid, take_grid, variants
from jtcore.recipe import build_recipe
from jtcore.run import locked
from jtcore.statistics import mean_interval
from jtcore.tables import read_table

VARIANTS = ("full", "no_ait", "unmeasured")
REACH = "adapter.joint: 2 modules, 54 parameters"


@pytest.fixture
def ablation(table, write_recipe) -> dict:
    """Three variants that stand on a recipe beside them."""
    table["validation"] = {"data": ["held_out"], "draws": 2}
    write_recipe(table, "base")
    no_ait = {"losses": {"motion": {"kind": "diffusion", "on": "video"}}}
    return {
        "base": "base.toml",
        "launch": {"kind": "here"},
        "variant": {
            "full": {},
            "no_ait": {"stage": {"joint": {"branch": {"joint": no_ait}}}},
            "unmeasured": {"validation": False},
        },
    }


def test_a_variant_is_laid_over_the_base(table):
    made = variants(table | {"variant": {"full": {}, "short": {"stage": {"joint": {"steps": 1}}}}})

    short = deepcopy(table)
    short["stage"]["joint"]["steps"] = 1
    assert made == {"full": table, "short": short}


def test_a_recipe_is_one_variant_without_a_name(table):
    assert variants(table) == {None: table}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "variant: expected tables [variant.NAME]"),
        (3, "variant: expected tables [variant.NAME]"),
        ({"a": 3}, "variant.a: expected a table"),
        (
            {"../a": {}},
            "variant: the name '../a' may only have letters, digits, _ and -",
        ),
    ],
)
def test_what_is_no_variant_is_told(table, given, problem):
    with pytest.raises(JtError) as caught:
        variants(table | {"variant": given})

    assert str(caught.value) == problem


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "grid.csv").read_text().splitlines()))


def test_every_variant_is_run_and_the_table_has_its_numbers(ablation, jt_run, capsys):
    out = jt_run(ablation)

    assert [row["variant"] for row in rows(out)] == ["full", "no_ait", "unmeasured"]
    for row in rows(out):
        results = json.loads((out / row["variant"] / "metrics.json").read_text())
        metric = results["metrics"]["adapted"]["consistency.temporal_consistency"]["mean"]
        change = results["validation"]["held_out"]["change"] if "validation" in results else ""
        assert row["consistency.temporal_consistency"] == str(metric)
        assert row["held_out loss change"] == str(change)
    assert len({row["consistency.temporal_consistency"] for row in rows(out)}) == 2
    table = (out / "grid.md").read_text()
    lines = table[table.index("\nEvery run") :].splitlines()[3:]
    assert lines[:2] == ["|  | base model | full | no_ait | unmeasured |", "|" + " --- |" * 5]
    assert lines[2].startswith("| held_out loss change |")
    assert lines[3].startswith(f"| {CONSISTENCY} |")
    assert "\n".join(lines[:4]) in capsys.readouterr().out


def test_a_variant_is_the_recipe_that_it_says(ablation, jt_run, write_recipe, plugins):
    out = jt_run(ablation)

    resolved = read_table(out / "no_ait/recipe.resolved.toml")
    motion = resolved["stage"]["joint"]["branch"]["joint"]["losses"]["motion"]
    assert motion["kind"] == "diffusion"
    assert "validation" not in read_table(out / "unmeasured/recipe.resolved.toml")
    assert build_recipe(resolved, plugins).title == "tiny"


def test_problems_of_all_variants_are_told_with_their_names(ablation, write_recipe, capsys):
    ablation["variant"]["no_ait"]["stage"]["joint"]["stepz"] = 3
    ablation["variant"]["unmeasured"] |= {"adapter": {"joint": {"targets": "visula"}}}

    assert cli.run([str(write_recipe(ablation)), "--check"]) == 2

    assert capsys.readouterr().err.splitlines() == [
        "variant.no_ait: stage.joint.stepz: unknown key; did you mean 'steps'?",
        "variant.unmeasured: adapter.joint: unknown target role 'visula'; did you mean 'visual'?",
    ]


def test_a_check_counts_the_variants(ablation, write_recipe, capsys):
    path = write_recipe(ablation)

    assert cli.run([str(path), "--check"]) == 0

    told = capsys.readouterr().out.splitlines()
    assert told[-1] == f"{path}: 3 variants: 3 runs checked, no problem found"
    assert told[:-1] == [f"variant.{name}: {REACH}" for name in VARIANTS]


def test_a_half_finished_ablation_is_continued(ablation, jt_run, capsys):
    out = jt_run(ablation)
    whole = {path: path.read_bytes() for path in out.glob("*/adapters/*")}
    table = (out / "grid.md").read_bytes()
    (out / "grid.md").unlink()
    (out / "grid.csv").unlink()
    (out / "no_ait/result.json").unlink()
    for path in out.glob("no_ait/adapters/*"):
        path.unlink()
    for path in (*out.glob("unmeasured/*.json"), *out.glob("unmeasured/*/*.safetensors")):
        if path.name != "run.json":
            path.unlink()
    began = (out / "full/result.json").stat().st_mtime_ns
    capsys.readouterr()

    assert cli.run(["--resume", str(out)]) == 0

    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("[")] == [
        "[2/3] no_ait finished",
        "[3/3] unmeasured finished",
    ]
    assert {path: path.read_bytes() for path in out.glob("*/adapters/*")} == whole
    assert (out / "grid.md").read_bytes() == table
    assert (out / "full/result.json").stat().st_mtime_ns == began


def test_a_variant_may_have_plugins_of_its_own(ablation, jt_run, plugin_folder, table):
    folder = plugin_folder(
        own="""
        from jtcore import hookimpl
        from jtplugins.losses.ait import AiT

        @hookimpl
        def jt_losses():
            return {"own": AiT}
        """
    )
    own = ablation["variant"]["no_ait"]
    own["plugins"] = {"folders": [*table["plugins"]["folders"], str(folder)]}
    own["stage"]["joint"]["branch"]["joint"]["losses"]["motion"]["kind"] = "own"

    assert (jt_run(ablation) / "no_ait/result.json").is_file()


@pytest.fixture
def grid(ablation) -> dict:
    """Three variants with two seeds each."""
    return ablation | {"seeds": [0, 5]}


CONSISTENCY = "consistency.temporal_consistency"


def test_every_variant_is_run_with_every_seed(grid, jt_run):
    out = jt_run(grid)

    names = ("full", "no_ait", "unmeasured")
    runs = [(f"{name}-seed{seed}", name, seed) for seed in (0, 5) for name in names]
    found = read_grid(out)
    assert found.axes == {"variant": names, "seed": (0, 5)}
    assert [(t.folder, t.variant, t.seed) for t in found.trials] == runs
    assert [(row["variant"], row["seed"]) for row in rows(out)] == [(v, str(s)) for _, v, s in runs]
    for folder, _, seed in runs:
        resolved = read_table(out / folder / "recipe.resolved.toml")
        assert (resolved["seed"], resolved["sample"]["seeds"]) == (seed, [0])
        assert json.loads((out / folder / "run.json").read_text())["seed"] == seed
        assert (out / folder / "result.json").is_file()


def test_a_run_of_a_grid_is_the_run_of_its_variant_and_seed(grid, jt_run):
    alone = deepcopy(grid)
    del alone["seeds"]
    alone["variant"] = {"no_ait": alone["variant"]["no_ait"] | {"seed": 5}}
    adapter = "adapters/joint.safetensors"

    one = jt_run(grid) / "no_ait-seed5" / adapter
    other = jt_run(alone, name="alone") / "no_ait" / adapter

    assert one.read_bytes() == other.read_bytes()


def shown(interval, sign="") -> str:
    half = (interval.high - interval.low) / 2
    reach = f" ± {half:.4f} (n={interval.count})" if half else f" (all {interval.count})"
    return f"{interval.estimate:{sign}.4f}{reach}"


def cells(table: str) -> dict[str, dict[str, str]]:
    """Of a Markdown table, by column and row."""
    (_, *header), _, *body = (
        [c.strip() for c in line.split("|")[1:-1]] for line in table.split("\n")
    )
    return {name: {row[0]: row[i] for row in body} for i, name in enumerate(header, 1)}


def test_the_table_of_a_grid_has_means_and_paired_differences(grid, jt_run, capsys):
    out = jt_run(grid)

    found = {
        name: [float(row[CONSISTENCY]) for row in rows(out) if row["variant"] == name]
        for name in grid["variant"]
    }
    text = (out / "grid.md").read_text().partition("\n## variant\n")[2].strip()
    means, changes, differences = (cells(table) for table in text.split("\n\n")[1::2])
    assert text.startswith("Mean ± 95 % interval (Student's t) over seeds; of the base model over")
    assert "\nDifference to full, of runs alike in all else: mean over seeds" in text
    assert list(means) == ["base model", "full", "no_ait", "unmeasured"]
    assert list(changes) == list(found)
    assert list(differences) == ["no_ait", "unmeasured"]
    for name in found:
        assert means[name][CONSISTENCY] == shown(mean_interval(found[name]))
    for name, column in differences.items():
        pairs = zip(found[name], found["full"], strict=True)
        difference = mean_interval([one - other for one, other in pairs])
        assert column[CONSISTENCY] == shown(difference, "+")
    assert means["unmeasured"].get("held_out loss change") == ""
    assert text.partition("\n")[0] in capsys.readouterr().out


def test_one_seed_has_no_interval(grid, jt_run):
    out = jt_run(grid, "--set", "seeds=[7]")

    text = (out / "grid.md").read_text().partition("\nEvery run")[2]
    means = cells(text.split("\n\n")[1])
    value = float(rows(out)[0][CONSISTENCY])
    assert means["full"][CONSISTENCY] == f"{value:.4f}"


def test_a_half_finished_grid_is_continued(grid, jt_run):
    out = jt_run(grid)
    found, tables = rows(out), (out / "grid.md").read_bytes()
    for path in (out / "grid.csv", out / "grid.md", out / "no_ait-seed5/result.json"):
        path.unlink()

    assert cli.run(["--resume", str(out)]) == 0

    assert (out / "grid.md").read_bytes() == tables
    costs = {"seconds": "", "host GiB": ""}
    assert [row | costs for row in rows(out)] == [row | costs for row in found]


def test_a_grid_is_run_seed_by_seed():
    grid = take_grid({"variant": {"a": {}, "b": {}}, "seeds": [1, 0]}, Path("it")).grid
    found = [(trial.variant, trial.seed) for trial in grid.trials]
    assert found == [("a", 1), ("b", 1), ("a", 0), ("b", 0)]


def test_a_problem_of_a_grid_is_told_once(grid, write_recipe, capsys):
    grid["variant"]["no_ait"]["stage"]["joint"]["stepz"] = 3

    assert cli.run([str(write_recipe(grid)), "--check"]) == 2

    assert capsys.readouterr().err == (
        "variant.no_ait: stage.joint.stepz: unknown key; did you mean 'steps'?\n"
    )


def test_a_check_counts_the_seeds(grid, write_recipe, capsys):
    path = write_recipe(grid)

    assert cli.run([str(path), "--check"]) == 0

    told = capsys.readouterr().out.splitlines()
    assert told[-1] == f"{path}: 3 variants x 2 seeds: 6 runs checked, no problem found"
    assert told[:-1] == [f"variant.{name}: {REACH}" for name in VARIANTS]


EXPECTED = "seeds: expected a list of different whole numbers from 0, got "


@pytest.mark.parametrize(
    ("seeds", "problem"),
    [
        (3, f"{EXPECTED}3"),
        (False, f"{EXPECTED}False"),
        ([], f"{EXPECTED}[]"),
        ([1, 1], f"{EXPECTED}[1, 1]"),
        ([0, -1], f"{EXPECTED}[0, -1]"),
        ([0.5], f"{EXPECTED}[0.5]"),
        ([True], f"{EXPECTED}[True]"),
        (["0"], f"{EXPECTED}['0']"),
    ],
)
def test_what_are_no_seeds_is_told(table, seeds, problem):
    with pytest.raises(JtError) as caught:
        variants(table | {"variant": {"full": {}}, "seeds": seeds})

    assert str(caught.value) == problem


def test_seeds_need_no_variants(table):
    grid = take_grid(table | {"seeds": [0, 1]}, Path("it")).grid
    assert [trial.folder for trial in grid.trials] == ["seed0", "seed1"]


def test_a_seed_of_a_variant_and_seeds_are_refused(table):
    with pytest.raises(JtError) as caught:
        variants(table | {"variant": {"full": {"seed": 3}}, "seeds": [0, 1]})

    assert str(caught.value) == ("variant.full.seed: the grid's seeds take its place; remove one")


def test_a_run_that_is_being_done_is_not_replaced(ablation, jt_run, write_recipe, capsys):
    out = jt_run(ablation)
    (out / "full/result.json").unlink()
    ablation["variant"]["full"] = {"stage": {"joint": {"steps": 2}}}
    capsys.readouterr()

    with locked(out / "full"):
        assert cli.run([str(write_recipe(ablation, "run")), "--out", str(out)]) == 2

    told = "full: stage.joint.steps is 2 and was 3, but is being done as it was; end that first\n"
    assert capsys.readouterr().err == told
