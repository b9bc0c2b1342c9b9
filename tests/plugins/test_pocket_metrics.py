"""The metrics of pocket's world, as a run has them: of real files, by the prompt, with a task."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve

from jtcore import cli
from jtcore.media import read_sample, write_video
from jtcore.types import Sample
from jtplugins.metrics.sprite_identity import SpriteIdentity
from jtplugins.metrics.sprite_motion import SpriteMotion
from jtplugins.metrics.success import Success
from jtplugins.pocket import cli as pocket_cli
from jtplugins.pocket.measure import paths, success
from jtplugins.pocket.measure.films import KINDS, Case, through_codec, true
from jtplugins.pocket.measure.validation import (
    CHANGE,
    METRICS,
    cases,
    load_metrics,
    prompt,
)
from jtplugins.pocket.tiers import draw_tasks

CPU = torch.device("cpu")
RIGHT = {
    "sprite_identity": 1,
    "sprite_motion": 1,
    "background_adherence": 1,
    "background_leak": 0,
    "appearance_leak": 0,
    "single_object": 1,
    "steadiness": 1,
    "success": 1,
}
WRONG = {  # the metrics that must tell each kind, and what they are then
    "look-alike, same colours": {"sprite_identity": 0, "success": 0},
    "subject, colours exchanged": {"sprite_identity": 0, "success": 0},
    "subject, one colour replaced": {"colours": 0.5, "success": 0},
    "plain ball in its colour": {"sprite_identity": 0, "success": 0},
    "the motion's performer": {"sprite_identity": 0, "appearance_leak": 1, "success": 0},
    "another motion": {"sprite_motion": 0, "success": 0},
    "opposite direction": {"sprite_motion": 0, "success": 0},
    "frozen": {"sprite_motion": 0, "success": 0},
    "two objects": {"single_object": 0, "success": 0},
    "a small ball beside it": {"single_object": 0, "single": 0, "success": 0},
    "the subject twice": {"sprite_motion": 0, "single_object": 0, "success": 0},
    "half of a clip's background": {"background_leak": 0.5, "success": 0},
    "a clip's pattern": {"background_leak": 1, "background_adherence": 0, "success": 0},
    "jittering by 1 px": {"steadiness": 0},
    "noise of 0.1 on it": {"single_object": 0, "success": 0},
    "a clip's background": {"background_adherence": 0, "background_leak": 1, "success": 0},
    "another background": {"background_adherence": 0, "success": 0},
    "nothing": dict.fromkeys(
        ("sprite_identity", "sprite_motion", "single_object", "steadiness", "success"), 0
    ),
    "noise alone": dict.fromkeys(RIGHT.keys() - {"background_leak", "appearance_leak"}, 0),
}
MANY_WRONG = (  # not one thing
    *("subject, one colour replaced", "two objects", "the subject twice"),
    *("half of a clip's background", "jittering by 1 px"),
    *("nothing", "noise of 0.1 on it", "noise alone"),
)
SUBJECT_KINDS = [kind for kind in WRONG if kind not in MANY_WRONG]


@pytest.fixture(scope="module", params=[("wug", "eightwise"), ("zot", "squares")], ids="-".join)
def task(request, tmp_path_factory) -> tuple[Path, Case]:
    """A leaky task's folder, and a scene that it is asked for."""
    shown, _ = draw_tasks(*request.param, tier="leaky", seed=1)
    folder = tmp_path_factory.mktemp("task")
    shown.write(folder)
    return folder, cases(shown)[0]


def asked(folder: Path, file: Path, text: str) -> dict[str, float]:
    """What every metric says of a file; values beside the main one by their names."""
    sample = Sample(read_sample(file)[0], text, seed=0, fps=8)
    found = [metric(sample) for metric in load_metrics(folder).values()]
    return {name: value for values in found for name, value in values.items()}


def written(path: Path, video: np.ndarray) -> Path:  # (3, F, H, W) in [0, 1]
    write_video(path, torch.from_numpy(video), fps=8)
    return path


def test_a_right_video_is_right_by_every_metric(task, tmp_path):
    folder, case = task
    file = written(tmp_path / "right.mp4", through_codec(true(case)))
    found = asked(folder, file, prompt(case.scene))
    for metric, right in RIGHT.items():
        assert found[metric] == pytest.approx(right, abs=0.2), metric
    assert found["correlation"] > 0.9
    assert found["motion_error_px"] < 0.2
    assert found["jitter_px"] < 0.2


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_video_is_told_by_the_metrics_that_must(kind, task, tmp_path):
    folder, case = task
    file = written(tmp_path / "wrong.mp4", KINDS[kind](case))
    found = asked(folder, file, prompt(case.scene))
    for metric, value in WRONG[kind].items():
        assert found[metric] == pytest.approx(value, abs=0.2), metric


@pytest.mark.parametrize("kind", SUBJECT_KINDS)
def test_one_thing_wrong_leaves_the_other_metrics_right(kind, task, tmp_path):
    folder, case = task
    file = written(tmp_path / "wrong.mp4", KINDS[kind](case))
    found = asked(folder, file, prompt(case.scene))
    for metric in RIGHT.keys() - WRONG[kind].keys() - {"appearance_leak"}:
        assert found[metric] == pytest.approx(RIGHT[metric], abs=0.2), metric


def test_values_survive_the_file(task, tmp_path):
    folder, case = task
    video = torch.from_numpy(through_codec(true(case)))
    file = written(tmp_path / "right.mp4", video.numpy())
    found = asked(folder, file, prompt(case.scene))
    again = asked(folder, written(tmp_path / "again.mp4", video.numpy()), prompt(case.scene))
    direct = SpriteIdentity(str(folder)).load(CPU)(Sample(video, prompt(case.scene), 0, 8.0))
    direct |= SpriteMotion().load(CPU)(Sample(video, prompt(case.scene), 0, 8.0))
    assert found == again
    for name, value in direct.items():
        assert found[name] == pytest.approx(value, abs=0.03), name


def test_what_a_prompt_does_not_say_has_no_value(task, tmp_path):
    folder, case = task
    file = written(tmp_path / "right.mp4", true(case))
    found = asked(folder, file, "a creature")
    assert found.keys() == {"single_object", "stray_px", "steadiness", "jitter_px"}


def test_the_words_of_a_prompt_name_another_sprite_than_the_subject(task, tmp_path):
    folder, case = task
    file = written(tmp_path / "right.mp4", true(case))
    found = asked(folder, file, "a red ring on gray")
    assert found["sprite_identity"] == 0
    assert found.keys() >= {"appearance_leak", "background_adherence"}
    assert "sprite_motion" not in found


def test_a_picture_has_identity_and_background_but_no_motion(task, tmp_path):
    folder, case = task
    file = written(tmp_path / "picture.mp4", true(case)[:, :1])
    found = asked(folder, file, prompt(case.scene))
    assert found["sprite_identity"] > 0.9 and found["background_adherence"] > 0.9
    assert not {"sprite_motion", "steadiness", "success"} & found.keys()


@pytest.mark.parametrize("frames", [4, 6])
def test_a_shorter_clip_is_right_if_its_beginning_is(task, tmp_path, frames):
    folder, case = task
    file = written(tmp_path / "short.mp4", true(case)[:, :frames])
    assert asked(folder, file, prompt(case.scene))["sprite_motion"] > 0.8


def test_a_clip_twice_as_slow_is_measured_over_its_whole_length(task, tmp_path):
    folder, case = task
    file = written(tmp_path / "slow.mp4", true(case).repeat(2, axis=1))
    assert asked(folder, file, prompt(case.scene))["sprite_motion"] > 0.5


def test_another_geometry_is_brought_to_the_worlds(task, tmp_path):
    folder, case = task
    wide = np.pad(true(case).repeat(7, 2).repeat(7, 3), [(0, 0)] * 3 + [(20, 20)], mode="edge")
    found = asked(folder, written(tmp_path / "wide.mp4", wide), prompt(case.scene))
    for metric, right in RIGHT.items():
        assert found[metric] == pytest.approx(right, abs=0.2), metric


def test_the_place_costs_nothing(task, tmp_path):
    folder, case = task
    moved = evolve(case, scene=evolve(case.scene, offset=(1.0, -1.0)))
    file = written(tmp_path / "moved.mp4", through_codec(true(moved)))
    found = asked(folder, file, prompt(case.scene))
    assert found["success"] == 1


def test_the_strict_rule_is_documented_as_it_is():
    told = " ".join(Success.__doc__.split())
    assert f"sprite_identity of {success.IDENTITY:g} or more" in told
    assert f"a correlation above {success.CORRELATION:g} and {success.COLOURS:g} or more" in told
    assert f"sprite_motion of {paths.MOTION:g} or more" in told
    assert "an object in every frame" in told
    assert f"an error below {paths.ERROR:g} px" in told
    assert f"background_adherence of {success.BACKGROUND:g} or more" in told
    assert "single_object of 1" in told


def _recipe(table: dict, task: Path) -> dict:
    table["metric"] = {
        "identity": {"kind": "sprite_identity", "task": str(task)},
        "motion": {"kind": "sprite_motion"},
        "leak": {"kind": "background_leak", "task": str(task)},
    }
    table["sample"]["prompts"] = ["a sks creature moves eightwise on gray"]
    return table


def test_a_missing_task_is_one_error_before_training(table, tmp_path, write_recipe, capsys):
    missing = tmp_path / "nowhere"
    path = write_recipe(_recipe(table, missing))
    assert cli.run([str(path), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert told.count("task.json") == 1
    assert f"metric.identity.task, metric.leak.task: {missing}: not found" in told.replace(
        "/task.json", ""
    )
    assert not (tmp_path / "run" / "adapters").exists()


def test_a_foreign_task_is_one_error_before_training(table, tmp_path, write_recipe, capsys):
    (tmp_path / "task.json").write_text(json.dumps({"subject": "cat"}))
    path = write_recipe(_recipe(table, tmp_path))
    assert cli.run([str(path), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "metric.identity.task, metric.leak.task: " in told
    assert told.count("not a task of this version") == 1


def test_a_run_measures_its_samples(table, jt_run, data):
    out = jt_run(_recipe(table, data))
    entries = json.loads((out / "metrics.json").read_text())["samples"]
    assert all("identity.sprite_identity" in entry["metrics"] for entry in entries)
    assert all("leak.background_leak" in entry["metrics"] for entry in entries)


def test_every_kind_that_is_wrong_is_known_to_be():
    right = {"true", "true, through the codec", "the same, as mp4"}
    assert KINDS.keys() - WRONG.keys() == right


def test_every_kind_of_video_is_in_the_table_that_the_command_shows(capsys):
    assert pocket_cli.main(["metrics", "--tasks", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"| video | {' | '.join(METRICS)} |"
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [*KINDS, CHANGE]
    assert not any("nan" in line for line in lines)
