"""`jt-sample`: what was trained is attached again, and generates what it did."""

import json
from pathlib import Path

import pytest

from jtcore import cli
from jtcore.media import read_sample


def videos(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.mp4"))]


@pytest.mark.parametrize("source", [".", "adapters/joint.safetensors"])
def test_sampling_a_run_again_gives_the_same_videos(trained, jt_sample, source):
    out = jt_sample(trained / source, "--seed", "7")

    assert len(videos(out / "adapted")) == 2
    assert videos(out / "adapted") == videos(trained / "samples/adapted")


def test_the_backbone_of_a_recipe_is_sampled_alone(trained, jt_sample):
    out = jt_sample(trained.parent / "recipe.toml", "--seed", "7")

    assert sorted(path.name for path in out.iterdir()) == ["base", "samples.json"]
    assert videos(out / "base") == videos(trained / "samples/base")


def test_the_backbone_of_a_shipped_recipe_is_sampled_alone(jt_sample):
    out = jt_sample("jointtuner_pocket", "--frames", "1", "--steps", "1")

    assert len(videos(out / "base")) == 2


def test_what_is_sampled_with_captions_is_data_of_a_class(trained, jt_sample, tmp_path):
    recipe = trained.parent / "recipe.toml"
    out = jt_sample(recipe, "--frames", "1", "--count", "3", "--captions")

    told = [path.read_text().strip() for path in sorted((out / "base").glob("*.txt"))]
    assert told == ["a wug"] * 3 + ["a ball moves"] * 3
    learn = [f"data.subject.source={out / 'base'}", "stage.joint.steps=1", "sample.steps=1"]
    settings = [part for each in learn for part in ("--set", each)]
    assert cli.run([str(recipe), "--out", str(tmp_path / "run"), "--quiet", *settings]) == 0


def test_a_recipe_has_no_adapters_to_scale(trained, tmp_path, capsys):
    given = [str(trained.parent / "recipe.toml"), "--prompt", "a wug", "--out", str(tmp_path / "v")]
    assert cli.sample([*given, "--scale", "joint=1"]) == 2
    assert capsys.readouterr().err == "--scale joint=1: no adapter 'joint'; there are []\n"
    assert cli.sample([*given, "--count", "0"]) == 2
    assert "sample.seeds" in capsys.readouterr().err


def test_at_scale_zero_an_adapter_changes_nothing(trained, jt_sample):
    out = jt_sample(trained, "--seed", "7", "--scale", "joint=0")

    assert videos(out / "adapted") == videos(trained / "samples/base")
    assert videos(out / "adapted") != videos(trained / "samples/adapted")


def test_an_adapter_file_needs_nothing_of_its_run(trained, jt_sample, tmp_path):
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((trained / "adapters/joint.safetensors").read_bytes())

    assert videos(jt_sample(alone, "--seed", "7") / "adapted") == videos(
        trained / "samples/adapted"
    )


def test_options_change_what_is_sampled(trained, jt_sample):
    out = jt_sample(trained, "--frames", "3", "--fps", "5", "--steps", "1")

    video, fps = read_sample(out / "adapted/00-seed0.mp4")
    assert (video.shape[1], fps) == (3, pytest.approx(5))
    assert json.loads((out / "samples.json").read_text())[1] == {
        "file": "adapted/01-seed0.mp4",
        "model": "adapted",
        "prompt": "a ball moves",
        "seed": 0,
        "scales": {"joint": 0.5},
    }


def test_a_precision_that_the_backbone_cannot_compute_in_is_refused(trained, tmp_path, capsys):
    backbone = ["kind='wan'", "weights='random'", "layers=1", "seed=0"]
    changes = [f"backbone.{each}" for each in backbone] + ["engine.precision='fp16'"]
    given = [part for change in changes for part in ("--set", change)]
    asked = ["--prompt", "a wug", "--size", "32", "32", "--frames", "5"]
    assert cli.sample([str(trained), *asked, *given, "--out", str(tmp_path / "out")]) == 2
    assert "engine.precision: Wan was trained in bf16" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def told(out: Path) -> dict:
    """What is said of the first sample beyond file, model, prompt, seed and scales."""
    entry = json.loads((out / "samples.json").read_text())[0]
    return {key: entry[key] for key in list(entry)[5:]}


PLAIN = ("--no-dynamic-guidance", "--batch", "1", "--noise-share", "0", "--scheduler", "ddim")


def test_an_adapter_is_sampled_as_its_recipe_did(scheduled, jt_sample, motion):
    assert told(jt_sample(scheduled)) == {
        "scheduler": "dpm",
        "dynamic_guidance": True,
        "noise_prior": {"video": str(motion), "share": 0.25, "steps": 2, "prompt": "a wug"},
        "batch": 2,
        "schedule": {"joint": {"unit": "step", "at": [1.0], "scales": [0.0, 1.0], "on": "both"}},
    }


def test_what_a_recipe_did_can_be_taken_away(trained, scheduled, jt_sample):
    scale = ("--seed", "7", "--scale", "joint=0.5")
    out = jt_sample(scheduled, *PLAIN, *scale, "--schedule", "joint=false")

    assert told(out) == {"scheduler": "ddim"}
    assert videos(out / "adapted") == videos(trained / "samples/adapted")


def test_options_sample_in_unusual_ways(trained, jt_sample, motion):
    schedule = "joint={unit='fraction', at=[0.5], scales=[0, 2], on='prompted'}"
    prior = ("--noise-prior", str(motion), "--noise-share", "0.75")
    asked = ("--scheduler", "dpm", "--dynamic-guidance", "--batch", "2", *prior)

    out = jt_sample(trained, "--seed", "7", *asked, "--schedule", schedule)
    assert told(out) == {
        "scheduler": "dpm",
        "dynamic_guidance": True,
        "noise_prior": {"video": str(motion), "share": 0.75, "steps": 50, "prompt": ""},
        "batch": 2,
        "schedule": {
            "joint": {"unit": "fraction", "at": [0.5], "scales": [0.0, 2.0], "on": "prompted"}
        },
    }


@pytest.mark.parametrize(
    "option",
    [
        ("--scheduler", "dpm"),
        ("--dynamic-guidance",),
        ("--noise-prior", "MOTION"),
        ("--schedule", "joint={unit='step', at=[1], scales=[0, 1]}"),
        ("--schedule", "joint={unit='step', at=[1], scales=[1, 0], on='negative'}"),
    ],
    ids=" ".join,
)
def test_every_option_changes_the_videos(trained, jt_sample, motion, option):
    option = [str(motion) if word == "MOTION" else word for word in option]
    out = jt_sample(trained, "--seed", "7", *option)

    plain, found = videos(trained / "samples/adapted"), videos(out / "adapted")
    assert [a == b for a, b in zip(plain, found, strict=True)] == [False, False]


def test_an_adapter_of_another_backbone_is_sampled_and_told(trained, capsys, tmp_path):
    asked = ["--prompt", "a wug", "--out", str(tmp_path / "v"), "--steps", "1", "--frames", "1"]
    capsys.readouterr()

    assert cli.sample([str(trained), *asked]) == 0
    video = f"{tmp_path / 'v/adapted/00-seed0.mp4'}: a wug"
    assert capsys.readouterr() == (f"{video}\n", "")

    asked[3] = str(tmp_path / "w")
    assert cli.sample([str(trained), *asked, "--set", "backbone.seed=1"]) == 0
    file = trained / "adapters/joint.safetensors"
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: was trained on another denoiser, text, codec of the backbone",
        f"{tmp_path / 'w/adapted/00-seed0.mp4'}: a wug",
    ]


def test_an_adapter_of_a_local_plugin_is_sampled_from_its_run(
    table, jt_run, plugin_folder, tmp_path
):
    run = jt_run(table)

    assert cli.sample([str(run), "--prompt", "a wug", "--out", str(tmp_path / "v")]) == 0

    assert videos(tmp_path / "v/adapted") == videos(run / "samples/adapted")
