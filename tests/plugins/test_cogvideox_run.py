"""Recipes on CogVideoX, from the check to samples."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from checkpoints.cogvideox import build
from safetensors.torch import load_file

from jtcore import cli
from jtcore.media import read_sample
from jtplugins.backbones.cogvideox import CogVideoX

SIZE = [32, 48]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Callable[[str], Path]:
    """The checkpoint of a flavour, built when it is first asked for."""
    return cache(lambda flavour: build(tmp_path_factory.mktemp("weights"), flavour))


@pytest.fixture
def recipe(table, data, folder) -> Callable[..., dict]:
    """GLoRA and AiT on a tiny checkpoint: two steps, one video of nine frames."""

    def on(flavour: str, **engine: object) -> dict:
        motion = {"source": str(data / "motion"), "size": SIZE, "frames": 9, "short": "repeat"}
        subject = {"source": str(data / "subject"), "size": SIZE}
        sample = {"prompts": ["a wug jumps"], "negative": "blurry", "frames": 9, "size": SIZE}
        return table | {
            "backbone": {"kind": "cogvideox", "weights": str(folder(flavour))},
            "data": {"subject": subject, "motion": motion},
            "engine": {"gradient_checkpointing": True, **engine},
            "stage": {"joint": table["stage"]["joint"] | {"steps": 2}},
            "sample": sample | {"steps": 2, "guidance": 3},
            "metric": {},
        }

    return on


def test_a_recipe_is_checked_trained_and_sampled(recipe, write_recipe, jt_run, tmp_path):
    assert cli.run([str(write_recipe(recipe("1.5"))), "--check"]) == 0
    out, more = jt_run(recipe("1.5")), tmp_path / "more"
    assert cli.sample([str(out), "--prompt", "a wug", "--seed", "3", "--out", str(more)]) == 0
    trained = load_file(out / "adapters" / "joint.safetensors")
    assert len(trained) == 3 * 2 * 6  # three tensors for each of six linears in two blocks
    assert all(weight.isfinite().all() for weight in trained.values())
    videos = [*(out / "samples").glob("*/00-seed0.mp4"), *more.rglob("*.mp4")]
    shapes = [read_sample(video)[0].shape for video in videos]  # small ones are enlarged
    assert [(shape[1], shape[3] / shape[2]) for shape in shapes] == [(9, 1.5)] * 3


@pytest.mark.parametrize(("flavour", "precision"), [("2b", "fp16"), ("5b", "bf16")])
def test_each_model_trains_in_its_own_half_precision(recipe, jt_run, flavour, precision):
    table = recipe(flavour, precision=precision)
    del table["sample"]
    out = jt_run(table)
    trained = load_file(out / "adapters" / "joint.safetensors")
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert all(weight.isfinite().all() for weight in trained.values())


def test_the_other_half_precision_is_refused_before_training(recipe, write_recipe, capsys):
    assert cli.run([str(write_recipe(recipe("5b", precision="fp16"))), "--check"]) == 2
    assert capsys.readouterr().err == (
        "engine.precision: CogVideoX with rotary positions (5B, 1.5) was trained in bf16, and in"
        ' fp16 it is known to make numbers that are not finite; use "bf16", or "fp32"\n'
    )


def test_what_does_not_fit_is_told_at_its_place(recipe, write_recipe, capsys):
    table = recipe("1.5")
    table["data"]["subject"]["size"] = [30, 48]
    table["data"]["motion"]["frames"] = 8
    table["sample"]["frames"] = 16
    table["sample"]["prompts"] = [" ".join(["red"] * 40)]
    assert cli.run([str(write_recipe(table)), "--check"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "data.subject.size: CogVideoX takes multiples of 16 px, found 30x48; the nearest is 32x48",
        "data.motion.frames: CogVideoX takes 8N+1 frames, found 8; the nearest is 9",
        "sample: CogVideoX takes 8N+1 frames, found 16; the nearest is 17",
        f"sample.prompts: '{'red ' * 15}...' has 121 tokens; this checkpoint reads 48",
    ]


def test_missing_weights_are_told_once(recipe, write_recipe, capsys):
    table = recipe("5b")
    table["backbone"]["weights"] = "no/such/place"
    assert cli.run([str(write_recipe(table)), "--check"]) == 2
    assert capsys.readouterr().err == (
        "backbone.weights: 'no/such/place' is no folder; expected one, or a hub id such as"
        ' "owner/name"\n'
    )


def test_encoders_are_not_loaded_for_what_is_in_the_cache(recipe, jt_run, monkeypatch):
    table = recipe("5b")
    del table["sample"]
    jt_run(table, name="first")

    def refuse(*_: object) -> None:
        raise AssertionError("an encoder is loaded")

    monkeypatch.setattr(CogVideoX, "load_text_encoder", refuse)
    monkeypatch.setattr(CogVideoX, "load_codec", refuse)
    jt_run(table, name="again")
