"""A grid that is run again: only what is missing or has changed is done, and why is said."""

import shutil
from pathlib import Path

import pytest

from jtcore import cli
from jtcore.grids import folder as folders
from jtcore.grids.folder import check_trials
from jtcore.grids.grid import read_grid, run_folders, take_grid
from jtcore.grids.state import write_failure
from jtcore.run import locked


@pytest.fixture
def here(grid) -> dict:
    """Two runs in this process."""
    return (
        grid
        | {"axes": {"adapter.joint.rank": [1, 2]}, "variant": {"full": {}}, "seeds": [0]}
        | {"launch": {"kind": "here"}}
    )


@pytest.fixture
def run(write_recipe, tmp_path, capsys):
    """Run a grid into one folder, and give what was said."""

    def again(table: dict, *options: str) -> list[str]:
        capsys.readouterr()
        command = [str(write_recipe(table)), "--out", str(tmp_path / "out"), *options]
        assert cli.run(command) == 0
        return capsys.readouterr().out.splitlines()

    return again


def ends(folder: Path) -> dict[str, int]:
    return {r.name: (r / "result.json").stat().st_mtime_ns for r in run_folders(folder)}


def test_what_is_complete_is_left_alone(here, run, tmp_path):
    run(here)
    before = ends(tmp_path / "out")

    said = run(here)

    out = tmp_path / "out"
    assert said[0] == f"{out}: 1 variant x 2 ranks x 1 seed: 2 runs, 0 to be done"
    assert not [line for line in said if line.startswith("[")]
    assert ends(out) == before


def test_what_a_grid_has_more_is_done(here, run, tmp_path):
    run(here)
    before = ends(tmp_path / "out")

    said = run(here | {"seeds": [0, 1]})

    names = [f"full-rank{rank}-seed1" for rank in (1, 2)]
    assert said[1:3] == [f"  {name}: new" for name in names]
    after = ends(tmp_path / "out")
    assert {name: after[name] for name in before} == before and set(names) < set(after)


def test_what_a_grid_has_less_is_left_as_it_is(here, run, tmp_path):
    run(here)
    said = run(here | {"axes": {"adapter.joint.rank": [2]}})

    assert "  full-rank1-seed0: is left as it is, no part of the grid any more" in said
    assert (tmp_path / "out/full-rank1-seed0/result.json").is_file()
    assert [trial.folder for trial in read_grid(tmp_path / "out").trials] == ["full-rank2-seed0"]


def test_a_changed_recipe_is_run_again_and_the_old_run_kept(here, run, tmp_path):
    run(here)
    old = (tmp_path / "out/full-rank2-seed0/run.json").read_bytes()
    here["axes"]["adapter.joint.rank"] = [1, 2]
    here["variant"] = {"full": {"stage": {"joint": {"lr": 0.02}}}}

    said = run(here)

    why = "stage.joint.lr is 0.02 and was 0.01"
    assert said[1:3] == [f"  full-rank{rank}-seed0: {why}" for rank in (1, 2)]
    assert said[3] == f"  what they replace goes to {tmp_path / 'out.replaced'}"
    kept = sorted((tmp_path / "out.replaced").iterdir())
    assert [each.name.rpartition("-")[0] for each in kept] == [
        "full-rank1-seed0",
        "full-rank2-seed0",
    ]
    assert (kept[1] / "run.json").read_bytes() == old


def test_changed_data_are_why_a_run_is_done_again(here, run, tmp_path, data):
    shutil.copytree(data / "subject", tmp_path / "subject")
    here["data"]["subject"]["source"] = str(tmp_path / "subject")
    run(here)
    picture = next((tmp_path / "subject").glob("*.png"))
    picture.with_suffix(".txt").write_text("a wug of another kind\n")

    said = run(here)

    caption = picture.with_suffix(".txt")
    assert said[1] == (
        f"  full-rank1-seed0: data.subject: {caption} has changed since this run began"
    )


def test_files_are_those_that_are_named_from_where_the_grid_is_run(
    here, write_recipe, tmp_path, data, monkeypatch, capsys
):
    for name in ("here", "there"):
        shutil.copytree(data / "subject", tmp_path / name / "subject")
    caption = next((tmp_path / "there/subject").glob("*.png")).with_suffix(".txt")
    caption.write_text("a wug of another kind\n")
    here["data"]["subject"]["source"] = "subject"
    recipe = write_recipe(here)
    for name, due in (("here", 2), ("here", 0), ("there", 2)):
        monkeypatch.chdir(tmp_path / name)
        assert cli.run([str(recipe), "--out", str(tmp_path / "out")]) == 0
        assert f"{due} to be done" in capsys.readouterr().out.splitlines()[0]


def test_changed_code_of_a_plugin_in_use_is_why_a_run_is_done_again(here, run, plugin_folder):
    source = """
        from jtcore import hookimpl
        from jtplugins.losses.ait import AiT

        @hookimpl
        def jt_losses():
            return {"NAME": AiT}
        """
    folder = plugin_folder(own=source.replace("NAME", "own"), idle=source.replace("NAME", "idle"))
    here["plugins"] = {"folders": [*here["plugins"]["folders"], str(folder)]}
    losses = here["stage"]["joint"]["branch"]["joint"]["losses"]
    losses["motion"]["kind"] = "own"
    run(here)

    (folder / "idle.py").write_text((folder / "idle.py").read_text() + "\n# changed")
    assert "0 to be done" in run(here)[0]
    (folder / "own.py").write_text((folder / "own.py").read_text() + "\n# changed")
    assert run(here)[1] == f"  full-rank1-seed0: plugin {folder / 'own.py'} has changed"


def test_code_that_decides_what_a_step_does_is_why_a_run_is_done_again(here, run, plugin_folder):
    source = """
        from jtcore import hookimpl

        @hookimpl
        def jt_choose_branches(stage, step, rng):
            return None
        """
    folder = plugin_folder(chooses=source)
    here["plugins"] = {"folders": [*here["plugins"]["folders"], str(folder)]}
    run(here)
    (folder / "chooses.py").write_text((folder / "chooses.py").read_text() + "\n# changed")
    assert run(here)[1] == f"  full-rank1-seed0: plugin {folder / 'chooses.py'} has changed"


def test_what_does_not_matter_to_results_makes_no_run_again(here, run, tmp_path):
    run(here)
    before = ends(tmp_path / "out")
    run(here | {"title": "another", "checkpoint": {"keep": 3}})
    assert ends(tmp_path / "out") == before


def test_a_result_whose_recipe_can_no_longer_be_is_none_until_it_is_mended(
    here, run, write_recipe, tmp_path, capsys
):
    run(here)
    before = ends(tmp_path / "out")
    wrong = here | {"axes": {"adapter.joint.rank": [1, 2]}}
    wrong["variant"] = {"full": {}, "more": {"stage": {"joint": {"stepz": 3}}}}
    wrong["axes"] = {"adapter.joint.rank": ["x", 1, 2]}

    assert cli.run([str(write_recipe(wrong)), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "adapter.joint.rank: expected int, got 'x'" in said and "unknown key" in said
    assert "2 of 6 runs are finished" in said
    wrong = here | {"stage": {"joint": {**here["stage"]["joint"], "stepz": 3}}}
    wrong["variant"] = {"full": {}, "good": {"stage": {"joint": {"stepz": False}}}}
    assert cli.run([str(write_recipe(wrong)), "--out", str(tmp_path / "out")]) == 2
    rows = (tmp_path / "out/grid.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [
        ["full-rank1-seed0", "failed"],
        ["good-rank1-seed0", "finished"],
        ["full-rank2-seed0", "failed"],
        ["good-rank2-seed0", "finished"],
    ]

    said = run(here)
    assert "0 to be done" in said[0]
    assert ends(tmp_path / "out") == before


def test_what_dies_while_runs_are_replaced_passes_no_old_run_off_as_new(
    here, run, write_recipe, tmp_path, monkeypatch, capsys
):
    run(here)
    monkeypatch.setattr(folders, "fill_folder", _dies)
    slower = here | {"variant": {"full": {"stage": {"joint": {"lr": 0.02}}}}}
    with pytest.raises(ZeroDivisionError):
        cli.run([str(write_recipe(slower)), "--out", str(tmp_path / "out")])
    capsys.readouterr()

    assert cli.run(["--resume", str(tmp_path / "out")]) == 2
    assert "2 runs have no folder yet; run jt-run GRID again" in capsys.readouterr().err
    monkeypatch.undo()
    run(slower)
    assert len([*(tmp_path / "out.replaced").iterdir()]) == 2


def _dies(*_) -> None:
    raise ZeroDivisionError


def test_a_run_that_another_process_does_is_left_to_it(here, run, write_recipe, tmp_path, capsys):
    run(here)
    first = tmp_path / "out/full-rank1-seed0"
    (first / "result.json").unlink()
    with locked(first), pytest.MonkeyPatch.context() as patch:
        patch.setattr("jtcore.grids.work.PATIENCE", 0.1)
        said = run(here)
    assert any("another process is at work on this run" in line for line in said)
    assert not (first / "failure.json").exists()
    assert "1 of 2 runs are finished" in "\n".join(said)


def test_a_seed_may_move_together_with_others(here):
    here = {key: value for key, value in here.items() if key not in ("seeds", "variant")}
    here["seeds"], here["title"] = [0, 1], "of {word} and {seed}"
    here["axes"] = {"word": ["a", "b"], "zip": [["seed", "word"]]}
    declared = take_grid(here, Path("it.toml"))

    wanted = check_trials(declared)

    titles = {trial.point["seed"]: each.recipe.title for trial, each in wanted.items()}
    assert titles == {0: "of a and 0", 1: "of b and 1"}


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(here, run, tmp_path):
    run(here)
    out = tmp_path / "out"
    shutil.rmtree(out / "full-rank1-seed0/adapters")
    (out / "full-rank1-seed0/result.json").unlink()
    write_failure(out / "full-rank1-seed0", "error", ["no space"])
    files = sorted(out.rglob("*"))

    said = run(here | {"seeds": [0, 1]}, "--dry-run")

    assert said[0] == f"{out}: 1 variant x 2 ranks x 2 seeds: 4 runs, 3 to be done"
    rows = {line.split()[0]: line for line in said[3:7]}
    assert rows["full-rank1-seed0"].endswith("failed before: no space")
    assert rows["full-rank2-seed0"].endswith("complete")
    assert rows["full-rank2-seed1"].endswith("new")
    assert said[8].startswith("time: ") and said[-1].startswith("memory: a run at most ")
    assert sorted(out.rglob("*")) == files


def test_a_launcher_of_ones_own_does_the_runs(here, run, plugin_folder):
    folder = plugin_folder(
        backwards="""
        from attrs import frozen
        from jtcore import hookimpl
        from jtcore.grids.work import do

        @frozen
        class Backwards:
            loud: bool = False

            def launch(self, jobs, stop):
                for run in reversed(jobs.runs):
                    jobs.say("next!" if self.loud else "next")
                    jobs.ended(run, do(run, jobs.say, stop))

        @hookimpl
        def jt_launchers():
            return {"backwards": Backwards}
        """
    )
    here["plugins"] = {"folders": [*here["plugins"]["folders"], str(folder)]}
    said = run(here | {"launch": {"kind": "backwards", "loud": True}})
    told = [line for line in said if line.startswith(("next", "["))]
    assert told == [
        *("next!", "[1/2] full-rank2-seed0 finished"),
        *("next!", "[2/2] full-rank1-seed0 finished"),
    ]


def test_a_folder_of_something_else_is_refused(here, write_recipe, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").touch()
    assert cli.run([str(write_recipe(here)), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path / 'out'} exists and is not of a grid; name another with --out\n"
    )


def test_a_grid_without_a_folder_is_brought_up_to_date_in_runs(
    here, write_recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    path = write_recipe(here, "mine")
    for _ in range(2):
        assert cli.run([str(path)]) == 0
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["mine"]


@pytest.mark.parametrize("option", ["--dry-run", "--follow"])
def test_what_is_of_grids_is_refused_of_a_recipe(option, table, write_recipe, capsys):
    assert cli.run([str(write_recipe(table)), option]) == 2
    assert capsys.readouterr().err == (
        f"{option} is of grids; jt-run --check and jt-plan are of a recipe\n"
    )
