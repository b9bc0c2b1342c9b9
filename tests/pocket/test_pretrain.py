"""Pretraining resumes to the same bits, and the shipped weights are its product."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import asdict

import jtplugins.pocket
from jtcore.errors import Interrupted, JtError
from jtcore.signals import SIGNALS
from jtplugins.pocket import cli, models
from jtplugins.pocket.plan import Plan
from jtplugins.pocket.pretrain import pretrain
from jtplugins.pocket.training import draw_scenes

PLAN = Plan(
    centred_steps=0,
    standing_steps=0,
    image_steps=1,
    growing_steps=2,
    video_steps=1,
    image_batch=2,
    video_batch=2,
    warm_up=1,
    codec_clips=64,
)
WEIGHTS = Path(jtplugins.pocket.__file__).parent / "weights"
PRODUCTS = ("transformer", "text_encoder", "codec")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    pretrain(folder, 5, PLAN, report=lambda line: None)
    return folder


def products(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for name in PRODUCTS
        for path in sorted((folder / name).iterdir())
    }


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_run_that_a_signal_stops_resumes_to_the_same_bytes(whole, tmp_path, number):
    def stop(line):
        if "step 1/" in line or "step 3/" in line:
            os.kill(os.getpid(), number)

    for _ in range(2):
        with pytest.raises(Interrupted):
            pretrain(tmp_path, 5, PLAN, report=stop, every=1)
    pretrain(tmp_path, 5, PLAN, report=stop, every=1)
    assert products(tmp_path) == products(whole)
    assert (tmp_path / "loss.csv").read_text() == (whole / "loss.csv").read_text()


def test_a_killed_run_repeats_what_it_had_not_written(whole, tmp_path):
    class Killed(Exception):
        pass

    def kill(line):
        if "step 3/" in line:
            raise Killed

    with pytest.raises(Killed):
        pretrain(tmp_path, 5, PLAN, report=kill, every=1)
    assert torch.load(tmp_path / "checkpoint.pt")["step"] == 2
    pretrain(tmp_path, 5, PLAN, report=lambda line: None)
    assert products(tmp_path) == products(whole)
    assert (tmp_path / "loss.csv").read_text() == (whole / "loss.csv").read_text()


def test_a_folder_of_another_run_is_refused(whole):
    with pytest.raises(JtError) as error:
        pretrain(whole, 6, PLAN)
    assert str(error.value) == (
        f"{whole}: holds a run of another seed or plan; choose another folder"
    )


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_stopped_command_ends_as_jt_run_does_and_says_how_it_goes_on(tmp_path, number):
    script = f"""
import signal, sys
from jtplugins.pocket import cli

def begun(event, arguments):
    if event == "open" and str(arguments[0]).endswith("loss.csv"):
        signal.raise_signal({number.value})

sys.addaudithook(begun)
raise SystemExit(cli.main(["pretrain", {str(tmp_path)!r}, "--threads", "1"]))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (ended.returncode, ended.stdout) == (3, "stopped; the same command continues\n")
    assert ended.stderr == f"{number.name}: ending at the next safe point\n"
    assert torch.load(tmp_path / "checkpoint.pt")["step"] == 1


class Opened:
    """What a pickle does that is trusted: it makes a file"""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def broken(kind: str, folder: Path) -> None:
    """Write something else than a checkpoint where pretraining looks for one."""
    file = folder / "checkpoint.pt"
    state = {"seed": 5, "plan": asdict(PLAN)}
    if kind == "text":
        file.write_text("nonsense")
    elif kind == "cut off":
        torch.save(torch.zeros(99), file)
        file.write_bytes(file.read_bytes()[:-200])
    else:
        held = {
            "a pickle": Opened(folder / "opened"),
            "a list": [1, 2],
            "no networks": state,
            "other networks": state | {"networks": {}},
        }
        torch.save(held[kind], file)


@pytest.mark.parametrize(
    "kind", ["text", "cut off", "a pickle", "a list", "no networks", "other networks"]
)
def test_a_broken_checkpoint_is_one_clear_line_and_nothing_is_unpickled(tmp_path, kind):
    broken(kind, tmp_path)
    with pytest.raises(JtError) as error:
        pretrain(tmp_path, 5, PLAN)
    assert re.fullmatch(
        rf"{tmp_path}/checkpoint\.pt: not a whole checkpoint of this version \(\w+\); "
        "remove it to begin anew, or choose another folder",
        str(error.value),
    )
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("option", "asked", "range_told"),
    [
        ("--threads", "0", "from 1 to 1024"),
        ("--threads", "1025", "from 1 to 1024"),
        ("--seed", "-1", f"from 0 to {2**63 - 1}"),
        ("--seed", str(2**63), f"from 0 to {2**63 - 1}"),
        ("--seed", "many", f"from 0 to {2**63 - 1}"),
    ],
)
def test_an_impossible_number_is_refused(tmp_path, capsys, option, asked, range_told):
    (tmp_path / "afile").touch()  # nothing trains, whatever the number
    with pytest.raises(SystemExit) as ended:
        cli.main(["pretrain", str(tmp_path / "afile"), f"{option}={asked}"])
    assert ended.value.code == 2
    told = f"argument {option}: expected a whole number {range_told}, got {asked!r}\n"
    assert capsys.readouterr().err.endswith(told)


def test_phases_are_in_order():
    with pytest.raises(ValueError, match="centred_steps <= standing_steps <= image_steps"):
        Plan(centred_steps=3, standing_steps=2, image_steps=4)


def test_each_phase_frees_one_thing():
    plan = Plan(
        centred_steps=1,
        standing_steps=2,
        image_steps=3,
        growing_steps=1,
        video_steps=90,
        widening=9,
    )
    drawn = [
        draw_scenes(np.random.default_rng(step), 64, plan, step)
        for step in (0, 1, 2, plan.steps - 1)
    ]

    anchors, motions, offsets = (
        [{pick(scene) for scene in scenes} for scenes in drawn]
        for pick in (lambda s: s.anchor, lambda s: s.motion, lambda s: s.offset)
    )
    assert anchors[0] == {"mid"} and all(len(among) == 9 for among in anchors[1:])
    assert motions[:2] == [{"stays"}, {"stays"}] and all(len(m) > 9 for m in motions[2:])
    furthest = [max(abs(off) for pair in pairs for off in pair) for pairs in offsets]
    assert all(0.2 < off <= 0.25 for off in furthest[:3]) and 0.6 < furthest[3] <= 0.75


def test_positions_grow_freer_and_the_rate_falls_to_the_end():
    plan = Plan()
    assert [plan.freedom(0), plan.freedom(plan.steps - 1)] == [0, 1]
    assert plan.rate(plan.warm_up) == 1
    assert 0 < plan.rate(plan.steps - 1) < 0.01


def test_the_shipped_weights_load_and_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*")) <= 8e6
    pocket = models.load(WEIGHTS)
    assert {weight.dtype for weight in pocket.transformer.parameters()} == {torch.float32}
    assert not pocket.text_encoder.training
    videos = models.sample(pocket, ["a red ball stays at mid on gray"], torch.Generator(), steps=2)
    assert videos.shape == (1, 3, 8, 24, 24)


def test_the_shipped_weights_say_how_they_were_made():
    facts = json.loads((WEIGHTS / "pretraining.json").read_text())
    assert {"seed", "plan", "spent", "losses", "parameters", "versions"} <= set(facts)
    assert facts["plan"] == asdict(Plan())
