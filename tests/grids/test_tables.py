"""The tables of a grid say what its runs have measured, and compare what is alike in all else."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from grid_folders import draw_grid, fail, finish, write_json
from scipy import stats

from jtcore.errors import JtError
from jtcore.grids.results import EVERY, refresh_results, write_results

VALUES = {  # by variant and seed; one run has not come to its end
    ("full", 0): 0.5,
    ("plain", 0): 0.25,
    ("full", 1): 0.125,
    ("full", 2): 0.375,
    ("plain", 2): 0.75,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    def numbers(point):
        value = VALUES.get((point["variant"], point["seed"]))
        return None if value is None else {"m.value": value}

    axes = {"variant": ["full", "plain"], "seed": [0, 1, 2]}
    return draw_grid(tmp_path / "grid", axes, numbers, lambda point: {"m.value": 0.1})


def section(text: str, title: str) -> list[str]:
    return next(part for part in text.split("\n## ") if part.startswith(f"{title}\n")).splitlines()


def table(lines: list[str], title: str) -> dict[str, dict[str, str]]:
    """By column and row."""
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.split(" | ")])
    header, _, *body = [[cell.strip("| ") for cell in row] for row in rows]
    return {name: {row[0]: row[i] for row in body} for i, name in enumerate(header) if i}


def told(folder: Path, heading: str, title: str) -> dict[str, dict[str, str]]:
    write_results(folder)
    return table(section((folder / "grid.md").read_text(), heading), title)


def interval(values, sign="") -> str:
    """As scipy has it."""
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return f"{np.mean(values):{sign}.4f} ± {(high - low) / 2:.4f} (n={len(values)})"


def test_every_run_is_a_row_of_the_csv(folder):
    fail(folder / "plain-1", "out of disk")
    write_results(folder)

    assert (folder / "grid.csv").read_text().splitlines() == [
        "run,state,variant,seed,seconds,m.value",
        "full-0,finished,full,0,2.5,0.5",
        "full-1,finished,full,1,2.5,0.125",
        "full-2,finished,full,2,2.5,0.375",
        "plain-0,finished,plain,0,2.5,0.25",
        "plain-1,failed,plain,1,,",
        "plain-2,finished,plain,2,2.5,0.75",
    ]


def test_differences_are_between_runs_of_the_same_seed(folder):
    write_results(folder)

    # t(0.975) is 4.302653 with 2 degrees of freedom, 12.706205 with 1 and 2.364624 with 7
    full, plain = 4.302653 * 0.1909407 / 3**0.5, 12.706205 * 0.25
    assert section((folder / "grid.md").read_text(), "variant")[1:20] == [
        "",
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
        "Difference to full, of runs alike in all else: mean over seeds ± 95 % interval"
        " (Student's t).",
        "",
        "|  | plain |",
        "| --- | --- |",
        f"| m.value | +0.0625 ± {12.706205 * 0.3125:.4f} (n=2) |",
    ]


def test_runs_that_are_not_finished_are_told_with_why_those_that_failed_first(folder):
    (folder / "full-0/result.json").unlink()
    fail(folder / "plain-1", "data.motion: no such folder", "metric.x: a | b", kind="mistake")
    write_results(folder)

    text = (folder / "grid.md").read_text()
    assert "6 runs: 4 finished, 1 failed, 1 waiting." in text
    assert section(text, "Not finished")[2:] == [
        "| run | state | why |",
        "| --- | --- | --- |",
        "| plain-1 | failed | data.motion: no such folder; metric.x: a \\| b |",
        "| full-0 | waiting |  |",
    ]


def test_a_run_whose_numbers_are_damaged_has_failed_and_hurts_no_other(folder):
    (folder / "full-1/metrics.json").write_text("{")
    write_results(folder)

    text = (folder / "grid.md").read_text()
    assert "| full-1 | failed |" in text
    assert "metrics.json: damaged" in text
    assert "0.4375 ± 0.7941 (n=2)" in text  # full without it


def test_one_variant_has_nothing_to_differ_from(tmp_path):
    axes = {"variant": ["full"], "seed": [0, 1]}
    folder = draw_grid(tmp_path / "one", axes, lambda point: {"m.value": point["seed"] / 2})
    write_results(folder)

    text = (folder / "grid.md").read_text()
    assert "Difference" not in text
    assert "What mattered" not in text
    assert told(folder, "variant", "Mean")["full"]["m.value"] == interval([0.0, 0.5])


def test_seeds_alone_are_averaged(tmp_path):
    folder = draw_grid(tmp_path / "seeds", {"seed": [0, 1, 2]}, lambda p: {"m.value": p["seed"]})

    assert told(folder, "All runs", "Mean")["all runs"]["m.value"] == interval([0, 1, 2])


def test_without_seeds_or_cells_a_run_is_what_it_is(tmp_path):
    axes = {"variant": ["a", "b"]}
    numbers = {"a": {"m.value": 0.5}, "b": {"m.value": 0.75}}
    folder = draw_grid(tmp_path / "plain", axes, lambda point: numbers[point["variant"]])

    assert told(folder, "variant", "Every run.")["b"] == {"m.value": "0.7500"}
    assert told(folder, "variant", "Difference to a, run by run.")["b"] == {"m.value": "+0.2500"}


def test_values_that_are_all_the_same_bound_nothing(folder):
    for seed in range(3):
        finish(folder / f"full-{seed}", {"m.value": 1.0}, {"m.value": 0.1})

    assert told(folder, "variant", "Mean")["full"]["m.value"] == "1.0000 (all 3)"


RANDOM = (
    np.random.default_rng(0).normal(size=(2, 3, 2, 3)).round(3)
)  # variant, subject, motion, seed
AXES = {
    "variant": ["full", "plain"],
    "subject": ["a", "b", "c"],
    "motion": ["x", "y"],
    "seed": [0, 1, 2],
}


def place(point) -> tuple[int, ...]:
    return tuple(AXES[axis].index(level) for axis, level in point.items())


def wider(values, sign=""):  # (..., seeds)
    """Over cells or over seeds, where these say less."""
    by_cell, by_seed = values.mean(-1).ravel(), values.reshape(-1, values.shape[-1]).mean(0)

    def width(means):
        return stats.sem(means) * stats.t.ppf(0.975, len(means) - 1)

    return interval(by_cell if width(by_cell) >= width(by_seed) else by_seed, sign)


def test_what_varies_is_cells_or_seeds_where_these_say_less(tmp_path):
    folder = draw_grid(tmp_path / "cells", AXES, lambda p: {"m": float(RANDOM[place(p)])})

    title = "Mean ± 95 % interval (Student's t) over subject × motion, or over seeds where these"
    means = told(folder, "variant", title)
    assert means["plain"]["m"] == wider(RANDOM[1])
    found = told(folder, "variant", "Difference to full, of runs alike in all else")
    assert found["plain"]["m"] == wider(RANDOM[1] - RANDOM[0], "+")
    subjects = told(folder, "subject", "Difference to a")
    assert subjects["c"]["m"] == wider(RANDOM[:, 2] - RANDOM[:, 0], "+")


def test_seeds_that_do_not_agree_are_heard_where_all_cells_do(tmp_path):
    """As where a variant differs by what a seed draws, in all tasks alike."""
    axes = {"variant": ["full", "plain"], "task": list("abcdefghi"), "seed": [0, 1, 2]}
    by_seed = [-1.0, 0.3, 0.6]
    folder = draw_grid(
        tmp_path / "seeds",
        axes,
        lambda p: {"m": by_seed[p["seed"]] * (p["variant"] == "plain") + ord(p["task"]) / 100},
    )
    found = told(folder, "variant", "Difference to full")
    assert found["plain"]["m"] == interval(np.array(by_seed), "+")
    assert "(n=3)" in found["plain"]["m"]


def test_of_a_grid_with_gaps_only_pairs_that_both_have_are_compared(tmp_path):
    gap = {"variant": "plain", "subject": "b", "motion": "x", "seed": 1}

    def excluded(point) -> bool:
        return point["variant"] == "full" and point["subject"] == "c"

    def numbers(point):
        return None if point == gap else {"m": float(RANDOM[place(point)])}

    folder = draw_grid(tmp_path / "gaps", AXES, numbers, without=excluded)
    difference = (RANDOM[1] - RANDOM[0])[:2]
    by_cell = difference.mean(-1)
    by_cell[1, 0] = difference[1, 0, [0, 2]].mean()

    found = told(folder, "variant", "Difference to full")
    assert found["plain"]["m"] == interval(by_cell.ravel(), "+")
    assert told(folder, "variant", "Mean")["full"]["m"] == interval(RANDOM[0, :2].mean(-1).ravel())


def test_axes_that_move_together_are_one(tmp_path):
    axes = {"variant": ["full", "plain"], "lr": [0.1, 0.2], "steps": [10, 20], "seed": [0, 1, 2]}

    def numbers(point):
        return {"m": point["seed"] ** 2 + point["steps"] + (point["variant"] == "plain")}

    def apart(point) -> bool:
        return (point["lr"] == 0.1) != (point["steps"] == 10)

    folder = draw_grid(tmp_path / "zip", axes, numbers, zipped=[["lr", "steps"]], without=apart)
    found = told(folder, "lr + steps", "Difference to 0.1, 10, of runs alike in all else")

    assert found == {"0.2, 20": {"m": "+10.0000 (all 2)"}}
    assert "over lr + steps, or over seeds" in (folder / "grid.md").read_text()


def test_levels_that_are_alike_for_python_are_apart(tmp_path):
    axes = {"mask": [True, 1], "seed": [0, 1]}
    folder = draw_grid(tmp_path / "bool", axes, lambda p: {"m": 5.0 if p["mask"] is True else 3.0})

    assert told(folder, "mask", "Difference to true")["1"]["m"] == "-2.0000 (all 2)"


def test_where_base_models_differ_changes_from_them_are_compared(folder):
    finish(folder / "plain-0", {"m.value": 0.25}, {"m.value": 0.2})
    finish(folder / "plain-2", {"m.value": 0.75}, {"m.value": 0.4})
    write_results(folder)

    text = (folder / "grid.md").read_text()
    assert "| base model |" not in text
    title = (
        "Difference to full, of runs alike in all else: mean over seeds ± 95 % interval (Student's"
        " t). The base model of plain measures otherwise than that of full: they were asked"
        " different things, or are of another backbone; of metrics, changes from the base model are"
        " compared."
    )
    found = table(section(text, "variant"), title)
    assert found["plain"]["m.value"] == interval([0.05 - 0.4, 0.35 - 0.275], "+")


def test_what_jt_eval_has_measured_is_a_number_too(folder):
    mean = {"mean": 0.75, "low": None, "high": None, "videos": 8, "prompts": 8}
    for run in folder.glob("*-?"):
        summary = {"base": {"n.x": mean | {"mean": 0.5}}, "adapted": {"n.x": mean, "m.value": mean}}
        metrics = {"n": {"better": "lower"}}
        write_json(run / "evaluation/evaluation.json", {"summary": summary, "metrics": metrics})
    means = told(folder, "variant", "Mean")

    assert means["full"] == {"m.value": interval([0.5, 0.125, 0.375]), "n.x": "0.7500 (all 3)"}
    assert means["base model"]["n.x"] == "0.5000 (n=1)"
    assert told(folder, "variant", "Change")["full"]["n.x"] == "+0.2500 (all 3)"


def test_a_terminal_is_told_means_what_mattered_and_how_many(folder):
    said = write_results(folder)

    assert said.splitlines()[0].startswith("Mean ± 95 % interval")
    assert "\n- variant, against full:\n    - nothing can be told from none at 95 %" in said
    assert said.endswith("\n6 runs: 5 finished, 1 waiting.")


def test_what_is_no_grid_is_told(tmp_path):
    with pytest.raises(JtError, match=r"is not the folder of a grid: it has no grid\.json"):
        write_results(tmp_path)


def test_numbers_that_are_none_stay_so(folder):
    finish(folder / "full-0", {"m.value": float("nan")}, {"m.value": 0.1})
    assert json.loads((folder / "full-0/metrics.json").read_text())

    assert told(folder, "variant", "Mean")["full"]["m.value"] == "nan (n=3)"


def test_while_runs_go_on_results_are_written_once_a_minute_at_most(folder):
    refresh_results(folder)
    tables = [folder / "grid.csv", folder / "grid.html"]
    before = [path.read_bytes() for path in tables]
    finish(folder / "full-0", {"m.value": 4.0})
    refresh_results(folder)
    assert [path.read_bytes() for path in tables] == before

    a_minute_ago = time.time() - EVERY
    os.utime(tables[0], (a_minute_ago, a_minute_ago))
    refresh_results(folder)
    assert ",4.0\n" in tables[0].read_text()


def test_what_hinders_results_while_runs_go_on_ends_nothing(folder):
    (folder / "grid.md").mkdir()

    refresh_results(folder)
    with pytest.raises(OSError):
        write_results(folder)


def test_processes_that_write_results_at_once_leave_whole_ones(folder):
    command = "import sys, pathlib; from jtcore.grids import results;"
    command += "print(results.write_results(pathlib.Path(sys.argv[1])))"
    both = [
        subprocess.Popen([sys.executable, "-c", command, folder], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [each.communicate()[0].decode() for each in both]

    assert [each.returncode for each in both] == [0, 0]
    assert said[0] == said[1] == write_results(folder) + "\n"
    assert not list(folder.rglob("*.partial"))
    events = list(folder.rglob("*tfevents*"))
    assert len(events) == len({path.parent for path in events}) == 1 + len(VALUES)
