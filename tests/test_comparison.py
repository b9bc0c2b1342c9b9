"""The tables of an ablation say what its runs have measured, seed by seed."""

import json
from pathlib import Path

import pytest

from jtcore.comparison import write_tables

VALUES = {  # by variant and seed; one run has not come to its end
    ("full", 0): 0.5,
    ("plain", 0): 0.25,
    ("full", 1): 0.125,
    ("plain", 1): None,
    ("full", 2): 0.375,
    ("plain", 2): 0.75,
}


def write_metrics(run: Path, **means: float) -> None:
    metrics = {
        model: {"m.value": {"mean": mean, "deviation": 0.5, "videos": 8}}
        for model, mean in means.items()
    }
    (run / "metrics.json").write_text(json.dumps({"metrics": metrics}))


@pytest.fixture
def folder(tmp_path) -> Path:
    runs = []
    for (variant, seed), value in VALUES.items():
        runs.append({"folder": f"{variant}-seed{seed}", "variant": variant, "seed": seed})
        run = tmp_path / runs[-1]["folder"]
        run.mkdir()
        if value is not None:
            write_metrics(run, base=0.1, adapted=value)
    (tmp_path / "ablation.json").write_text(json.dumps({"runs": runs}))
    return tmp_path


def test_every_run_is_a_row_of_the_csv(folder):
    write_tables(folder)

    assert (folder / "ablation.csv").read_text().splitlines() == [
        "variant,seed,m.value",
        "full,0,0.5",
        "plain,0,0.25",
        "full,1,0.125",
        "plain,1,",
        "full,2,0.375",
        "plain,2,0.75",
    ]


def test_differences_are_between_runs_of_the_same_seed(folder):
    text = write_tables(folder)

    # t(0.975) is 4.302653 with 2 degrees of freedom, 12.706205 with 1 and 2.364624 with 7
    full, plain = 4.302653 * 0.1909407 / 3**0.5, 12.706205 * 0.25
    assert (folder / "ablation.md").read_text() == f"{text}\n"
    assert text.splitlines() == [
        "Mean ± 95 % interval (Student's t) over seeds; of the base model over videos.",
        "",
        "|  | base model | full | plain |",
        "| --- | --- | --- | --- |",
        f"| m.value | 0.1000 ± {2.364624 * 0.5 / 8**0.5:.4f} (n=8)"
        f" | 0.3333 ± {full:.4f} (n=3) | 0.5000 ± {plain:.4f} (n=2) |",
        "",
        "Change from the base model, prompt by prompt: mean over seeds ± 95 % interval.",
        "",
        "|  | full | plain |",
        "| --- | --- | --- |",
        f"| m.value | +0.2333 ± {full:.4f} (n=3) | +0.4000 ± {plain:.4f} (n=2) |",
        "",
        "Difference to full, seed by seed: mean ± 95 % interval (Student's t).",
        "",
        "|  | plain |",
        "| --- | --- |",
        f"| m.value | +0.0625 ± {12.706205 * 0.3125:.4f} (n=2) |",
    ]


def test_one_variant_has_nothing_to_differ_from(folder):
    index = folder / "ablation.json"
    runs = [run for run in json.loads(index.read_text())["runs"] if run["variant"] == "full"]
    index.write_text(json.dumps({"runs": runs}))

    assert "Difference" not in write_tables(folder)


def test_variants_that_were_asked_different_things_are_not_compared(folder):
    write_metrics(folder / "plain-seed0", base=0.2, adapted=0.25)

    text = write_tables(folder)

    assert "Difference" not in text
    assert "| base model |" not in text
    assert "| m.value | +0.2333" in text.split("Change from the base model")[1]


def test_values_that_are_all_the_same_bound_nothing(folder):
    for seed in range(3):
        write_metrics(folder / f"full-seed{seed}", base=0.1, adapted=1.0)

    assert "| 1.0000 (all 3) |" in write_tables(folder)
