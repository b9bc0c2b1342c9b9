"""Validation while training goes on: what it says, and that training cannot tell."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jtcore import cli
from jtcore.cache import Cache, cache_folder
from jtcore.check import check
from jtcore.errors import JtError
from jtcore.noise import quantiles
from jtcore.recipe import build_recipe
from jtcore.rng import generator
from jtcore.stream import embed_texts, load_stream
from jtcore.trainer import Trainer

ADAPTER = "adapters/joint.safetensors"


@pytest.fixture
def curved(table) -> dict:
    """Four steps with dropout, and a validation after every other one; nothing is sampled."""
    del table["sample"], table["metric"]
    table["adapter"]["joint"]["dropout"] = 0.3
    table["stage"]["joint"]["steps"] = 4
    table["checkpoint"] = {"every": 1, "keep": 9}
    table["validation"] = {"data": ["held_out"], "draws": 3, "every": 2}
    table["engine"] = {"device": "cpu"}
    return table


def curve(run: Path) -> list[dict]:
    return json.loads((run / "validation.json").read_text())


def test_training_cannot_tell_that_it_is_validated(curved, jt_run):
    every = jt_run(curved, name="every")
    del curved["validation"]["every"]
    never = jt_run(curved, name="never")

    assert (every / ADAPTER).read_bytes() == (never / ADAPTER).read_bytes()
    assert not (never / "validation.json").exists()
    seen, unseen = (json.loads((run / "metrics.json").read_text()) for run in (every, never))
    assert seen["validation"] == unseen["validation"]


def test_the_curve_ends_where_a_validation_at_quantiles_ends(curved, jt_run):
    curved["validation"]["times"] = "quantiles"
    run = jt_run(curved)
    first, last = curve(run)

    assert [(record["step"], record["stage"]) for record in (first, last)] == [
        (2, "joint"),
        (4, "joint"),
    ]
    found = last["losses"]["held_out"]
    at_the_end = json.loads((run / "metrics.json").read_text())["validation"]["held_out"]
    assert {key: found[key] for key in at_the_end if key != "adapters"} == {
        key: value for key, value in at_the_end.items() if key != "adapters"
    }
    assert found["relative_change"] == found["change"] / found["base"]
    assert found["change"] != first["losses"]["held_out"]["change"]
    assert found["base"] == first["losses"]["held_out"]["base"]


def test_losses_are_at_the_middles_of_equal_parts_of_the_schedule(curved, jt_run, plugins):
    curved["validation"] |= {"every": 4, "seed": 7}
    found = curve(jt_run(curved))[0]["losses"]["held_out"]

    backbone = plugins.find("backbones", "tiny")().load(torch.device("cpu"), torch.float32)
    items, texts = held_out(curved, plugins)
    expected = []
    for number, time in enumerate([1 / 6, 1 / 2, 5 / 6]):
        of_files = []
        for latents, prompt in items:
            rng = generator(7, number, "validation", "held_out")
            torch.rand(1, generator=rng)
            noise = torch.randn(latents.shape, generator=rng)
            mixed = (1 - time) * latents + time * noise
            answer = backbone.predict(mixed, torch.tensor([time]), texts[prompt][None])
            of_files.append((answer - (noise - latents)).square().mean().item())
        expected.append(sum(of_files) / len(of_files))
    assert found["times"] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert found["at_times"]["base"] == pytest.approx(expected, rel=1e-5)
    assert found["base"] == pytest.approx(sum(expected) / 3, rel=1e-5)


def held_out(table: dict, plugins) -> tuple[list, dict]:
    """Latents (1, C, F, H, W) and prompts of the held-out files, and the prompts' embeddings."""
    recipe, cpu = build_recipe(table, plugins), torch.device("cpu")
    spec, cache = recipe.backbone.spec, Cache(cache_folder())
    stream = load_stream("held_out", recipe.data["held_out"], spec, cache, cpu, print)
    items = [(item.latents[:1], item.prompt) for item in stream.items]
    return items, embed_texts([prompt for _, prompt in items], spec, cache, cpu)


@pytest.mark.parametrize("levels", [10, 1000])
def test_quantiles_of_a_discrete_schedule_are_its_levels(levels):
    found = [at.steps(2, levels, torch.Generator()).tolist() for at in quantiles(5)]
    assert found == [[levels * part // 10] * 2 for part in (1, 3, 5, 7, 9)]


def test_a_branch_that_has_not_all_adapters_on_is_told_apart(curved, jt_run):
    curved["adapter"]["other"] = {"kind": "lora", "targets": "visual", "rank": 2}
    branch = curved["stage"]["joint"]["branch"]["joint"]
    losses = {"all": {"kind": "diffusion"}}
    curved["stage"]["joint"]["branch"] = {
        "pictures": {"data": ["subject"], "adapters": ["joint"], "losses": losses},
        "clips": {"data": ["motion"], "adapters": ["other"], "losses": losses},
        "both": {**branch, "adapters": ["joint", "other"]},
    }
    run = jt_run(curved)
    found = curve(run)[-1]["losses"]["held_out"]

    assert list(found["branches"]) == ["pictures"]  # it is of pictures, and `both` has all on
    assert found["branches"]["pictures"]["base"] == found["base"]
    assert found["branches"]["pictures"]["adapted"] != found["adapted"]
    plotted = EventAccumulator(str(run / "tensorboard")).Reload().Tags()["scalars"]
    assert {name for name in plotted if name.startswith("validation.held_out")} == {
        "validation.held_out/adapted",
        "validation.held_out/relative_change",
        "validation.held_out/pictures.adapted",
        "validation.held_out/pictures.relative_change",
    }


def test_tensorboard_has_each_point_at_its_step(curved, jt_run):
    run = jt_run(curved)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    points = [(e.step, e.value) for e in events.Scalars("validation.held_out/relative_change")]
    changes = [record["losses"]["held_out"]["relative_change"] for record in curve(run)]
    assert points == [(1, pytest.approx(changes[0])), (3, pytest.approx(changes[1]))]


@pytest.mark.parametrize("steps", [2, 3])
def test_a_run_that_is_resumed_has_the_curve_of_one_that_was_not(
    steps, curved, jt_run, monkeypatch, tmp_path
):
    whole = curve(jt_run(curved, name="whole"))
    step = Trainer.train_step

    def die(self, stage, here, optimizer):
        if here.number == steps:
            raise KeyboardInterrupt
        return step(self, stage, here, optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", die)
        with pytest.raises(AssertionError):
            jt_run(curved, name="killed")
    killed = tmp_path / "killed"
    written = curve(killed)
    assert written == whole[:1]
    late = {**written[0], "step": 4, "stage": "a stage that was done again"}
    (killed / "validation.json").write_text(json.dumps([*written, late]))

    assert cli.run(["--resume", str(killed)]) == 0
    assert curve(killed) == whole


def test_zero_that_divides_weights_is_refused_before_anything_is_computed(curved, plugins):
    curved["engine"] |= {"kind": "deepspeed", "deepspeed": {"stage": 3}}
    with pytest.raises(JtError) as caught:
        check(build_recipe(curved, plugins))
    assert list(caught.value.problems) == [
        "validation.every: with engine.deepspeed.stage = 3 no process has the whole denoiser while"
        " it trains; take stage = 2, or leave it out"
    ]
