"""A grid is planned where its weights and data are not, and says what runs lack."""

import pytest

from jtcore import cli


@pytest.fixture
def foretold(grid, write_recipe, tmp_path, capsys):
    """The exit status of a dry run, and the lines that it says to both."""

    def dry_run(changes: dict) -> tuple[int, list[str], list[str]]:
        path = write_recipe(grid | {"launch": {"kind": "here"}} | changes)
        status = cli.run([str(path), "--dry-run", "--tflops", "1", "--out", str(tmp_path / "out")])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return dry_run


def moved(table: dict, source: str) -> dict:
    return {**table["data"], "motion": {**table["data"]["motion"], "source": source}}


def test_what_many_runs_lack_is_told_once_and_all_are_planned(foretold, grid, tmp_path):
    status, said, problems = foretold({"data": moved(grid, "nowhere")})

    assert status == 2
    assert problems == [
        "full-rank1 and 3 more: data.motion.source: 'nowhere' matches no picture or video",
        "8 of 8 runs could not begin: what they lack is told above",
    ]
    _, whole, none = foretold({})
    assert none == []
    assert [line.split()[:3] for line in said[3:11]] == [line.split()[:3] for line in whole[3:11]]
    assert all(line.endswith("new") for line in said[3:11])
    assert not (tmp_path / "out").exists()


def test_what_some_runs_lack_is_told_with_their_name(foretold, grid):
    grid["variant"]["elsewhere"] = {"data": {"motion": {"source": "nowhere"}}}
    status, said, problems = foretold({"axes": {"adapter.joint.rank": [1]}})

    assert status == 2
    assert problems == [
        "elsewhere-rank1: data.motion.source: 'nowhere' matches no picture or video",
        "2 of 6 runs could not begin: what they lack is told above",
    ]
    assert said[0].endswith(": 3 variants x 1 rank x 2 seeds: 6 runs, 6 to be done")


def test_a_run_that_is_no_recipe_is_not_planned(foretold, grid):
    grid["variant"]["typo"] = {"stage": {"joint": {"stepz": 3}}}
    grid["variant"]["odd"] = {"data": {"motion": {"size": [25, 25]}}}
    status, said, problems = foretold({"axes": {"adapter.joint.rank": [1]}, "seeds": [0]})

    assert status == 2
    assert problems[0] == "typo-rank1: stage.joint.stepz: unknown key; did you mean 'steps'?"
    assert problems[1].startswith("odd-rank1: data.motion.size: ")
    rows = {line.split()[0]: line.split(maxsplit=5)[1:] for line in said[3:7]}
    for name in ("typo", "odd"):
        assert rows[f"{name}-rank1-seed0"] == [*"????", "cannot be planned"]
    assert rows["full-rank1-seed0"][0] == "3"
    assert said[8].startswith("time: ")


def test_where_nothing_can_be_planned_problems_are_all_that_is_said(foretold, grid):
    status, said, problems = foretold({"sample": {"prompts": "nowhere.txt"}})

    assert (status, said) == (2, [])
    assert "full-rank1 and 3 more: sample.prompts: no file 'nowhere.txt'" in problems[0]
