"""Recipes of real backbones, run on tiny checkpoints in the layout that the hub has."""

import re
from pathlib import Path

import pytest
from checkpoints.shrinking import prompt, settings

from jtcore import cli
from jtcore.plugins import load_plugins
from jtcore.recipe import build_recipe, recipe_table
from jtcore.tables import read_table
from jtplugins.pocket.draw import draw

RECIPES = [
    path
    for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
    if read_table(path)["backbone"]["kind"] != "pocket"
]
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=[path.stem for path in RECIPES])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where checkpoints are built, with a drawn task."""
    made = tmp_path_factory.mktemp("real")
    draw(made / "task", "wug", "eightwise", pictures=2, videos=2)
    return made


def test_there_are_recipes_of_methods_for_every_real_backbone():
    names = {path.stem for path in RECIPES}
    backbones = ("zeroscope", "modelscope", "cogvideox5b", "wan1.3b")
    methods = ("jointtuner", "lora", "motiondirector")
    assert {f"{method}_{one}" for method in methods for one in backbones} <= names
    assert {"jointtuner_cogvideox2b", "lora_cogvideox2b"} <= names


@pytest.mark.slow  # `make smoke` runs them too, as processes
@every_recipe
def test_a_recipe_is_checked_trained_and_sampled_on_a_tiny_checkpoint(
    recipe, folder, tmp_path, capsys
):
    changes = [part for each in settings(recipe, folder) for part in ("--set", each)]
    assert cli.run([str(recipe), "--check", *changes]) == 0, capsys.readouterr().err
    run = tmp_path / "run"
    assert cli.run([str(recipe), "--quiet", "--out", str(run), *changes]) == 0, (
        capsys.readouterr().err
    )
    adapters = {path.stem for path in (run / "adapters").glob("*.safetensors")}
    assert adapters == read_table(recipe)["adapter"].keys()
    for model in ("base", "adapted"):
        assert len(list((run / "samples" / model).glob("*.mp4"))) == 1
    again = ["--prompt", prompt(read_table(recipe)), "--out", str(tmp_path / "again"), "--quiet"]
    assert cli.sample([str(run), *again]) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "again").rglob("*.mp4"))) == 1


@every_recipe
def test_a_header_tells_paper_figure_needs_and_cost(recipe):
    header = recipe.read_text().split("\n\n")[0]
    assert "https://arxiv.org/abs/" in header
    assert re.search(r"^# Expect: ", header, re.MULTILINE)
    assert re.search(r"^# Needs( and cost)?: ", header, re.MULTILINE)
    assert re.search(r"^# (Needs and c|C)ost: ", header, re.MULTILINE)


RELEASED = {  # in the scripts of JointTuner: steps, lr, betas, clip, rank, gate, weight of AiT
    "zeroscope": (2000, 5e-4, (0.9, 0.999), 0.0, 32, "kaiming", 10.0),
    "modelscope": (2000, 5e-4, (0.9, 0.999), 0.0, 32, "kaiming", 10.0),
    "cogvideox2b": (1000, 2e-4, (0.9, 0.95), 1.0, 128, "normal", 1.0),
    "cogvideox5b": (1000, 1e-4, (0.9, 0.95), 1.0, 128, "normal", 1.0),
}
SAMPLED = {  # frames, size, steps, scheduler, guidance, dynamic, seed
    "zeroscope": (16, (384, 384), 30, None, 12.0, False, 696886),
    "modelscope": (16, (384, 384), 30, None, 12.0, False, 696886),
    "cogvideox2b": (49, (480, 720), 50, "dpm", 6.0, True, 4399),
    "cogvideox5b": (49, (480, 720), 50, "dpm", 6.0, True, 4399),
}


@pytest.mark.parametrize("backbone", RELEASED)
def test_jointtuners_numbers_are_the_released_ones(backbone):
    folder = Path(__file__).parents[1] / "recipes"
    recipe = build_recipe(read_table(folder / f"jointtuner_{backbone}.toml"), load_plugins())
    stage, adapter, sample = recipe.stage["joint"], recipe.adapter["joint"].spec, recipe.sample
    ait = stage.branch["motion"].losses["motion"]
    trained = (stage.steps, stage.lr, stage.betas, stage.clip)
    assert (*trained, adapter.rank, adapter.gate_init, ait.weight) == RELEASED[backbone]
    assert (stage.weight_decay, stage.eps, adapter.dropout, recipe.seed) == (1e-4, 1e-8, 0.1, 42)
    walk = (sample.steps, sample.scheduler, sample.guidance, sample.dynamic_guidance)
    assert (sample.frames, sample.size, *walk, *sample.seeds) == SAMPLED[backbone]


def test_lora_is_jointtuner_but_for_its_adapter_and_loss():
    plugins = load_plugins()
    for recipe in RECIPES:
        if not recipe.stem.startswith("lora_") or recipe.stem.startswith("lora_two_"):
            continue
        other = recipe.with_stem(recipe.stem.replace("lora", "jointtuner"))
        lora, joint = (
            recipe_table(build_recipe(read_table(path), plugins)) for path in (recipe, other)
        )
        differing = {key for key in lora if lora[key] != joint.get(key)}
        assert differing == {"title", "adapter", "stage"}
        assert lora["adapter"]["joint"]["rank"] == joint["adapter"]["joint"]["rank"]
        loss = lora["stage"]["joint"]["branch"]["motion"].pop("losses")
        joint["stage"]["joint"]["branch"]["motion"].pop("losses")
        assert lora["stage"] == joint["stage"] and loss["motion"]["kind"] == "diffusion"


def test_weights_and_data_that_are_not_there_are_told_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = next(path for path in RECIPES if path.stem == "jointtuner_cogvideox5b")
    assert cli.run([str(recipe), "--check", "--set", "backbone.weights=nowhere"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "backbone.weights: 'nowhere' is no folder; expected one, or a hub id such as"
        ' "owner/name"',
        "data.subject.source: 'data/subject/bear_plushie' matches no picture or video",
        "data.motion.source: 'data/motion_49f/person_playing_flute' matches no picture or video",
    ]
