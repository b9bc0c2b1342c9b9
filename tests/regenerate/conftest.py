"""A trained run, and `jt-sample` of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints.adapters import metadata
from safetensors.torch import load_file, save_file

from jtcore import cli


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory) -> Path:
    """A finished run on pocket's architecture, in which two videos of each model stand."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "recipe.toml"
    recipe.write_text(f"""
seed = 1
backbone = {{ kind = "pocket", weights = "random" }}
data.subject = {{ source = "{data / "subject"}", size = [24, 24] }}
adapter.joint = {{ kind = "glora", targets = "visual", rank = 2 }}
engine.precision = "bf16"

[sample]
prompts = ["a wug", "a ball moves"]
frames = 2
size = [24, 24]
steps = 2
seeds = [7]
scales = {{ joint = 0.5 }}

[stage.joint]
steps = 3
lr = 0.1
branch.joint = {{ data = ["subject"], adapters = ["joint"], losses.error.kind = "diffusion" }}
""")
    assert cli.run([str(recipe), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


@pytest.fixture
def jt_sample(tmp_path, capsys) -> Callable[..., Path]:
    """Sample what stands in a run, in this process, and say where."""

    def sample(*arguments: str | Path) -> Path:
        prompts = ["--prompt", "a wug", "--prompt", "a ball moves"]
        out = tmp_path / "videos"
        given = [*map(str, arguments), *prompts, "--out", str(out), "--quiet"]
        assert cli.sample(given) == 0, capsys.readouterr().err
        return out

    return sample


@pytest.fixture(scope="session")
def motion(data) -> Path:
    return min((data / "motion").glob("*.mp4"))


@pytest.fixture(scope="session")
def scheduled(trained, motion, tmp_path_factory) -> Path:
    """The run's adapter as one whose recipe sampled in every unusual way, at its full scale."""
    source = trained / "adapters/joint.safetensors"
    ((name, facts),) = metadata(source).items()
    facts = json.loads(facts)
    facts["sample"] |= {
        "scales": {"joint": 1.0},
        "scheduler": "dpm",
        "dynamic_guidance": True,
        "batch": 2,
        "noise_prior": {"video": str(motion), "share": 0.25, "steps": 2, "prompt": "a wug"},
        "schedule": {"joint": {"unit": "step", "at": [1.0], "scales": [0.0, 1.0], "on": "both"}},
    }
    other = tmp_path_factory.mktemp("scheduled") / "joint.safetensors"
    save_file(load_file(source), other, {name: json.dumps(facts)})
    return other
