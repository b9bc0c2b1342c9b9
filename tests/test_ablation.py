"""An ablation is a run for each variant, and a table at the end."""

import csv
import json
from copy import deepcopy
from pathlib import Path

import pytest

from jtcore import JtError, cli
from jtcore.ablation import variants
from jtcore.recipe import build_recipe
from jtcore.tables import read_table


@pytest.fixture
def ablation(table, write_recipe) -> dict:
    """Three variants that stand on a recipe beside them."""
    table["validation"] = {"data": ["held_out"], "draws": 2}
    write_recipe(table, "base")
    no_ait = {"losses": {"motion": {"kind": "diffusion", "on": "video"}}}
    return {
        "base": "base.toml",
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
    return list(csv.DictReader((run / "ablation.csv").read_text().splitlines()))


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
    table = (out / "ablation.md").read_text()
    assert table.splitlines()[:2] == [
        "| variant | held_out loss change | consistency.temporal_consistency |",
        "| --- | --- | --- |",
    ]
    assert table in capsys.readouterr().out


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

    assert capsys.readouterr().out == f"{path}: 3 variants checked, no problem found\n"


def test_a_half_finished_ablation_is_continued(ablation, jt_run, capsys):
    out = jt_run(ablation)
    whole = {path: path.read_bytes() for path in out.glob("*/adapters/*")}
    table = (out / "ablation.md").read_bytes()
    (out / "ablation.md").unlink()
    (out / "ablation.csv").unlink()
    (out / "no_ait/result.json").unlink()
    for path in out.glob("no_ait/adapters/*"):
        path.unlink()
    for path in (*out.glob("unmeasured/*.json"), *out.glob("unmeasured/*/*.safetensors")):
        if path.name != "run.json":
            path.unlink()
    began = (out / "full/result.json").stat().st_mtime_ns
    capsys.readouterr()

    assert cli.run(["--resume", str(out)]) == 0

    assert capsys.readouterr().out.splitlines()[0] == f"{out / 'full'} is complete already"
    assert {path: path.read_bytes() for path in out.glob("*/adapters/*")} == whole
    assert (out / "ablation.md").read_bytes() == table
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
