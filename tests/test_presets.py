"""Presets for cards, as commands take them: a shipped recipe is run with each on a tiny network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints.cogvideox import build
from checkpoints.shrinking import settings
from safetensors.torch import load_file

from jtcore import cli
from jtcore.presets import settings as preset_settings
from jtcore.presets import shipped, summary
from jtcore.tables import change, find_recipe, parse_toml, read_table
from jtplugins.pocket.draw import draw

RECIPE, LAYERS = "jointtuner_cogvideox5b", 4
OPTIONS = (
    *("stage.joint.steps=2", 'stage.joint.select="all"', "sample=false"),
    "adapter.joint.rank=32",  # smaller tensors keep a state of 32 bits
)
PLAIN = "engine.gradient_checkpointing=false"
EXACT = ("24g", "16g-exact", "8g-exact")
APPROXIMATE = {  # and what of it is not exact
    "16g-int8": {"base": "int8"},
    "12g-nf4": {"base": "nf4", "optimizer": "8bit"},
}
CARDS = (*EXACT, *APPROXIMATE)

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Callable[..., Path]:
    """Run the recipe with presets, or plainly but for options of memory; the same ones once."""
    folder = tmp_path_factory.mktemp("presets")
    draw(folder / "task", "wug", "eightwise", pictures=2, videos=2)
    build(folder / "THUDM--CogVideoX-5b", "5b", num_layers=LAYERS)
    changes = [*settings(find_recipe(RECIPE), folder), *OPTIONS]
    made: dict[tuple, Path] = {}

    def command(*presets: str, **memory: str) -> Path:
        key = presets, *memory.items()
        if key not in made:
            made[key] = folder / f"run{len(made)}"
            options = [] if presets else [PLAIN]
            options += [f"engine.memory.{name}={value}" for name, value in memory.items()]
            given = [part for each in (*changes, *options) for part in ("--set", each)]
            given += [part for each in presets for part in ("--preset", each)]
            assert cli.run([RECIPE, *given, "--quiet", "--out", str(made[key])]) == 0
        return made[key]

    return command


def trained(run: Path) -> Tensors:
    return load_file(run / "adapters/joint.safetensors")


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_preset_for_a_card_is_here():
    assert {name for name in shipped() if not name.startswith("zero")} == set(CARDS)


@pytest.mark.parametrize("preset", CARDS)
def test_a_header_says_whether_it_is_exact(preset):
    kind = "Exact" if preset in EXACT else "Approximate"
    assert summary(shipped()[preset]).startswith(f"{kind}: ")


@pytest.mark.parametrize("preset", CARDS)
def test_a_run_has_all_that_a_preset_sets(run, preset):
    resolved = parse_toml(run(preset) / "recipe.resolved.toml")["engine"]
    asked = parse_toml(shipped()[preset])["engine"]
    assert resolved["gradient_checkpointing"] is asked["gradient_checkpointing"] is True
    assert {name: resolved["memory"][name] for name in asked["memory"]} == asked["memory"]


@pytest.mark.parametrize("preset", sorted(shipped()))
def test_a_preset_leaves_all_else_of_the_engine_as_it_is(preset):
    recipe = read_table(find_recipe(RECIPE))
    engine = change(recipe, preset_settings([preset]))["engine"]
    assert engine == recipe["engine"] | parse_toml(shipped()[preset])["engine"]


@pytest.mark.parametrize("preset", EXACT)
def test_an_exact_preset_ends_in_the_same_bytes_as_no_option_of_memory(run, preset):
    plain, saving = (each / "adapters/joint.safetensors" for each in (run(), run(preset)))
    assert saving.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("preset", APPROXIMATE)
def test_of_an_approximate_preset_all_is_exact_but_what_is_said_to_be_approximate(run, preset):
    options, found = APPROXIMATE[preset], trained(run(preset))
    assert all(weight.isfinite().all() for weight in found.values())
    assert same(found, trained(run(**options)))
    for name in options:
        others = {key: value for key, value in options.items() if key != name}
        assert not same(found, trained(run(**others)))


@pytest.mark.parametrize("preset", EXACT)
def test_an_exact_preset_samples_the_same_bytes(run, preset, tmp_path):
    adapter = str(run() / "adapters/joint.safetensors")
    given = ["--prompt", "a wug", "--frames", "9", "--size", "32", "32", "--steps", "2", "--quiet"]
    videos = []
    for name, options in {"plain": [], "saving": ["--preset", preset]}.items():
        assert cli.sample([adapter, *given, *options, "--out", str(tmp_path / name)]) == 0
        (video,) = (tmp_path / name).rglob("*.mp4")
        videos.append(video.read_bytes())
    assert videos[0] == videos[1]


def test_a_setting_is_laid_over_a_preset(run, capsys):
    given = [str(run() / "recipe.resolved.toml"), "--preset", "24g", "--set", PLAIN, "--check"]
    assert cli.run(given) == 2
    assert capsys.readouterr().err == (
        "engine.memory.checkpoints: needs engine.gradient_checkpointing = true\n"
    )
