"""Installed as a wheel or editable, with strangers' plugins, far from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from attrs import frozen

CHECKOUT = Path(__file__).parents[1]
LEFT = shutil.ignore_patterns(".*", "runs", "data", "build", "dist", "*.egg-info", "__pycache__")

pytestmark = pytest.mark.slow

STRANGER = {
    "pyproject.toml": """
        [build-system]
        requires = ["setuptools"]
        build-backend = "setuptools.build_meta"

        [project]
        name = "stranger"
        version = "1"

        [project.entry-points.jtcore]
        absolute = "stranger"

        [tool.setuptools]
        py-modules = ["stranger"]
    """,
    "stranger.py": """
        from attrs import frozen
        from jtcore import hookimpl

        @frozen
        class Absolute:
            "Absolute error"

            def __call__(self, prediction, noised, part, rng):
                return (prediction - noised.target).abs().flatten(1).mean(1)

        @hookimpl
        def jt_losses():
            return {"absolute": Absolute}
    """,
}
LOCAL = """
    from attrs import frozen
    from jtcore import hookimpl

    @frozen
    class Brightness:
        "Mean brightness"

        def load(self, device):
            return lambda sample: {"mean": float(sample.video.mean())}

    @hookimpl
    def jt_metrics():
        return {"brightness": Brightness}
"""
RECIPE = """
    backbone = { kind = "pocket", weights = "random" }
    data.subject = { source = "data/pocket/subject", size = [24, 24] }
    adapter.joint = { kind = "lora", targets = "visual", rank = 2 }
    sample = { prompts = ["a wug"], frames = 2, size = [24, 24], steps = 2 }
    metric.light = { kind = "brightness" }

    [stage.joint]
    steps = 2
    lr = 1e-3
    branch.joint = { data = ["subject"], adapters = ["joint"], losses.error.kind = "absolute" }
"""


def write(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(dedent(text))
    return folder


def build(source: Path, out: Path, hook: str) -> Path:
    """A wheel, by a hook of the build backend; without network."""
    out.mkdir(exist_ok=True)
    script = f"from setuptools import build_meta; print(build_meta.{hook}({str(out)!r}))"
    built = subprocess.run(
        [sys.executable, "-c", script], cwd=source, check=True, capture_output=True, text=True
    )
    return out / built.stdout.splitlines()[-1]


@frozen
class Installation:
    """An environment with the commands, and a folder to call them in."""

    bin: Path
    folder: Path
    source: Path

    def call(self, command: str, *arguments: str) -> subprocess.CompletedProcess:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [self.bin / command, *arguments],
            cwd=self.folder,
            env=clean | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, tmp_path_factory) -> Iterator[Installation]:
    root = tmp_path_factory.mktemp(request.param)
    source = shutil.copytree(CHECKOUT, root / "source", ignore=LEFT)
    wheels = [
        build(source, root / "wheels", f"build_{request.param}"),
        build(write(root / "stranger", **STRANGER), root / "wheels", "build_wheel"),
    ]
    venv.create(root / "venv", with_pip=False, symlinks=True)
    python = root / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *wheels], check=True, capture_output=True)
    # what we depend on stands beside us; our own editable finder does not, its .pth is not read
    (own,) = (root / "venv/lib").glob("python*/site-packages")
    (own / "beside.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    if request.param == "wheel":
        shutil.rmtree(source)
    folder = write(root / "elsewhere", **{"recipe.toml": RECIPE})
    write(folder / "plugins", **{"light.py": LOCAL})
    yield Installation(root / "venv/bin", folder, source)


@pytest.fixture(scope="module")
def run(installed) -> Path:
    """A run with an external and a local plugin."""
    drawn = installed.call("jt-pocket", "draw", "data/pocket")
    assert drawn.returncode == 0, drawn.stderr
    ran = installed.call("jt-run", "recipe.toml", "--plugin-folder", "plugins", "--out", "run")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return installed.folder / "run"


def test_a_run_uses_an_external_and_a_local_plugin(installed, run):
    results = json.loads((run / "metrics.json").read_text())
    recorded = json.loads((run / "run.json").read_text())

    assert results["metrics"]["adapted"].keys() == {"light.mean"}
    origins = {origin["name"]: Path(origin["file"]) for origin in recorded["plugins"]}
    assert origins["absolute (stranger)"].name == "stranger.py"
    assert origins[str(installed.folder / "plugins/light.py")].is_file()
    home = installed.source if installed.source.exists() else installed.bin.parent
    assert origins["backbones.pocket"].is_relative_to(home)


def test_shipped_recipes_are_found(installed):
    said = installed.call("jt-run", "nowhere").stderr

    recipes, ablations = (
        sorted(path.stem for path in (CHECKOUT / folder).glob("*.toml"))
        for folder in ("recipes", "ablations")
    )
    shipped = [*recipes, *(f"ablations/{name}" for name in ablations)]
    assert said == (
        f"no such file, nor a shipped recipe: 'nowhere'; shipped are {', '.join(shipped)}\n"
    )


def test_a_sample_is_made_from_the_adapter_file(installed, run):
    made = installed.call(
        "jt-sample", "run/adapters/joint.safetensors", "--prompt", "a wug", "--out", "again"
    )

    assert made.returncode == 0, made.stderr
    again = installed.folder / "again/adapted/00-seed0.mp4"
    assert again.read_bytes() == (run / "samples/adapted/00-seed0.mp4").read_bytes()


def test_the_list_has_an_external_plugin(installed):
    said = installed.call("jt-plugins").stdout

    assert "  absolute               Absolute error" in said.splitlines()
    assert "broken:" not in said
