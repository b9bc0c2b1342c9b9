"""Pretraining resumes to the same bits, and the shipped weights are its product."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import asdict

import jtplugins.pocket
from jtcore.errors import JtError
from jtplugins.pocket import models, training
from jtplugins.pocket.plan import Plan
from jtplugins.pocket.pretrain import pretrain

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
    assert pretrain(folder, 5, PLAN, report=lambda line: None)
    return folder


def products(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for name in PRODUCTS
        for path in sorted((folder / name).iterdir())
    }


def test_a_run_that_sigterm_stops_resumes_to_the_same_bytes(whole, tmp_path):
    def terminate(line):
        if "step 1/" in line or "step 3/" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    assert not pretrain(tmp_path, 5, PLAN, report=terminate, every=1)
    assert not pretrain(tmp_path, 5, PLAN, report=terminate, every=1)
    assert pretrain(tmp_path, 5, PLAN, report=terminate, every=1)
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
    assert pretrain(tmp_path, 5, PLAN, report=lambda line: None)
    assert products(tmp_path) == products(whole)
    assert (tmp_path / "loss.csv").read_text() == (whole / "loss.csv").read_text()


def test_a_folder_of_another_run_is_refused(whole):
    with pytest.raises(JtError) as error:
        pretrain(whole, 6, PLAN)
    assert str(error.value) == (
        f"{whole}: holds a run of another seed or plan; choose another folder"
    )


def test_phases_are_in_order():
    with pytest.raises(ValueError, match="centred_steps <= standing_steps <= image_steps"):
        Plan(centred_steps=3, standing_steps=2, image_steps=4)


def test_each_phase_frees_one_thing(monkeypatch):
    plan = Plan(
        centred_steps=1,
        standing_steps=2,
        image_steps=3,
        growing_steps=1,
        video_steps=90,
        widening=9,
    )
    drawn = []
    monkeypatch.setattr(
        training, "render", lambda scenes, frames: drawn.append(scenes) or np.zeros(1)
    )
    for step in (0, 1, 2, plan.steps - 1):
        training.draw_clips(np.random.default_rng(step), 64, 1, plan, step)

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
