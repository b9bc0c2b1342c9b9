"""What TensorBoard and the progress display show of a run, read back as their readers do."""

import io
import json
import re
from pathlib import Path

import pytest
import rich
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog

from jtcore import cli
from jtplugins.observers.tensorboard import tag

BRANCH = "stage.joint/branch.joint"


def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()


def curve(found: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_tensorboard_has_every_scalar_under_its_path(table, jt_run):
    table["validation"] = {"data": ["held_out"], "draws": 1}
    found = events(jt_run(table))

    assert sorted(found.Tags()["scalars"]) == sorted(
        [
            f"{BRANCH}.losses.appearance",
            f"{BRANCH}.losses.motion",
            "stage.joint/lr",
            "stage.joint/grad_norm",
            "stage.joint/step_seconds",
            "adapter.joint/gate",
            "adapter.joint/gate_min",
            "adapter.joint/gate_max",
            "metric.base/consistency.temporal_consistency",
            "metric.adapted/consistency.temporal_consistency",
            "validation.base/held_out",
            "validation.adapted/held_out",
        ]
    )


def test_tensorboard_has_a_value_for_every_step(table, jt_run):
    table["stage"]["joint"] |= {"warmup": 2, "schedule": "linear"}
    found = events(jt_run(table))

    assert curve(found, "stage.joint/lr") == [
        (0, pytest.approx(0.005)),
        (1, pytest.approx(0.01)),
        (2, pytest.approx(0.01)),
    ]
    assert [step for step, _ in curve(found, f"{BRANCH}.losses.motion")] == [0, 1, 2]


def test_tensorboard_counts_on_over_stages(table, jt_run):
    table["stage"]["next"] = {**table["stage"]["joint"], "steps": 2}
    found = events(jt_run(table))

    assert [step for step, _ in curve(found, "stage.joint/lr")] == [0, 1, 2]
    assert [step for step, _ in curve(found, "stage.next/lr")] == [3, 4]


def test_tensorboard_has_metrics_at_the_last_step(table, jt_run):
    run = jt_run(table)

    mean = json.loads((run / "metrics.json").read_text())["metrics"]["adapted"]
    found = curve(events(run), "metric.adapted/consistency.temporal_consistency")
    assert found == [(3, pytest.approx(mean["consistency.temporal_consistency"]["mean"]))]


def test_tensorboard_has_samples_as_moving_pictures(table, jt_run):
    found = events(jt_run(table))

    assert found.Tags()["images"] == [
        "samples.base/a wug (seed 0)",
        "samples.adapted/a wug (seed 0)",
    ]
    (event,) = found.Images("samples.adapted/a wug (seed 0)")
    with Image.open(io.BytesIO(event.encoded_image_string)) as picture:
        assert (picture.format, picture.n_frames, picture.size) == ("GIF", 3, (192, 192))
    assert event.step == 3


def test_tensorboard_has_the_recipe_as_text(table, jt_run):
    run = jt_run(table)
    found = events(run)

    (event,) = found.Tensors("recipe/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    recipe = (run / "recipe.resolved.toml").read_text()
    assert text == "\n".join(f"    {line}" for line in recipe.splitlines())


def unfinish(run: Path, steps: int) -> None:
    """Leave of a run what one that was killed after that many steps, at most, had saved."""
    for path in (run / "result.json", run / "metrics.json", *run.glob("adapters/*")):
        path.unlink()
    for path in run.glob("checkpoints/*"):
        if int(path.stem.removeprefix("step-")) > steps:
            path.unlink()


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_tensorboard_has_each_step_once_after_resuming(table, jt_run, steps):
    table["checkpoint"] = {"every": 1, "keep": 9}
    run = jt_run(table)
    losses = curve(events(run), f"{BRANCH}.losses.motion")
    unfinish(run, steps)

    assert cli.run(["--resume", str(run), "--quiet"]) == 0

    found = events(run)
    assert curve(found, f"{BRANCH}.losses.motion") == losses
    metric = curve(found, "metric.adapted/consistency.temporal_consistency")
    assert {step for step, _ in metric} == {3}


def test_a_resumed_run_purges_from_the_step_that_it_resumes_at(table, jt_run):
    table["checkpoint"] = {"every": 1, "keep": 9}
    run = jt_run(table)
    (first,) = (run / "tensorboard").iterdir()
    unfinish(run, 2)

    assert cli.run(["--resume", str(run), "--quiet"]) == 0

    (second,) = set((run / "tensorboard").iterdir()) - {first}
    logs = [e for e in EventFileLoader(str(second)).Load() if e.HasField("session_log")]
    assert [(log.step, log.session_log.status) for log in logs] == [(2, SessionLog.START)]


def test_a_path_is_grouped_by_what_it_begins_with():
    assert tag("stage.joint.branch.a.losses.b") == "stage.joint/branch.a.losses.b"
    assert tag("stage.joint") == "stage/joint"
    assert tag("loss") == "loss"


# Progress


def test_progress_is_lines_where_there_is_no_terminal(table, jt_run, capsys):
    table["stage"]["joint"]["steps"] = 40
    jt_run(table)

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("joint ")]
    assert [line.split()[1] for line in lines] == [f"{done}/40" for done in range(4, 41, 4)]
    shape = r"joint \d+/40  loss \d+\.\d{4}  \d+\.\d steps/s  \d:\d\d left"
    assert all(re.fullmatch(shape, line) for line in lines)
    assert lines[-1].endswith("0:00 left")


def test_progress_is_live_on_a_terminal(table, jt_run, monkeypatch):
    screen = io.StringIO()
    console = rich.console.Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(rich, "_console", console)

    jt_run(table)

    assert "3/3" in screen.getvalue()
    assert "joint 3/3  loss" not in screen.getvalue()
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is shown again


def test_a_quiet_run_shows_no_progress_on_a_terminal(table, jt_run, monkeypatch):
    screen = io.StringIO()
    console = rich.console.Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(rich, "_console", console)

    jt_run(table, "--quiet")

    assert screen.getvalue() == ""


def test_an_observer_is_told_of_an_error(table, write_recipe, plugin_folder, tmp_path):
    folder = plugin_folder(
        teller="""
        from pathlib import Path
        from attrs import frozen
        from jtcore import JtError, hookimpl

        class Teller:
            def __init__(self, run, recipe):
                self.folder = run.folder

            @hookimpl
            def jt_run_finished(self, error):
                (self.folder / "told").write_text(repr(error))

        @frozen
        class Refusing:
            def __call__(self, prediction, noised, part, rng):
                raise JtError("not with me")

        @hookimpl
        def jt_losses():
            return {"refusing": Refusing}

        @hookimpl
        def jt_observers():
            return (Teller,)
        """
    )
    losses = table["stage"]["joint"]["branch"]["joint"]["losses"]
    losses["appearance"]["kind"] = "refusing"
    given = ["--plugin-folder", str(folder), "--out", str(tmp_path / "run"), "--quiet"]

    assert cli.run([str(write_recipe(table)), *given]) == 2

    assert (tmp_path / "run/told").read_text() == "JtError('not with me')"
