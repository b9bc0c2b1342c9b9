"""What all tests share: a cache of their own, drawn data, and a recipe that trains in no time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import tomli_w
import torch

from jtcore import cli
from jtcore.plugins import Plugins, load_plugins
from jtplugins.pocket.draw import draw

TINY = Path(__file__).parent / "tiny"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors on a busy machine are ten times faster so."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`subject` with two pictures, `motion` with two videos; nobody writes to it."""
    folder = tmp_path_factory.mktemp("data")
    draw(folder, "wug", "eightwise", pictures=2, videos=2)
    return folder


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    """The built-in plugins, and the backbone `tiny`."""
    return load_plugins([TINY])


@pytest.fixture
def table(data: Path) -> dict:
    """A whole recipe on `tiny`: three steps, two sampled videos of three frames."""
    return {
        "title": "tiny",
        "seed": 3,
        "backbone": {"kind": "tiny"},
        "plugins": {"folders": [str(TINY)]},
        "data": {
            "subject": {"source": str(data / "subject"), "size": [24, 24]},
            "motion": {"source": str(data / "motion"), "size": [24, 24], "frames": 3},
            "held_out": {"source": str(data / "held_out" / "subject"), "size": [24, 24]},
        },
        "adapter": {"joint": {"kind": "glora", "targets": "visual", "rank": 2}},
        "stage": {
            "joint": {
                "steps": 3,
                "lr": 0.01,
                "branch": {
                    "joint": {
                        "data": ["subject", "motion"],
                        "adapters": ["joint"],
                        "losses": {
                            "appearance": {"kind": "diffusion", "on": "image"},
                            "motion": {"kind": "ait", "on": "video"},
                        },
                    }
                },
            }
        },
        "sample": {"prompts": ["a wug"], "frames": 3, "size": [24, 24], "steps": 2, "guidance": 2},
        "metric": {"consistency": {"kind": "temporal_consistency"}},
    }


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write a table as a recipe file, and say where."""

    def write(table: dict, name: str = "recipe") -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(tomli_w.dumps(table))
        return path

    return write


@pytest.fixture
def jt_run(
    tmp_path: Path, write_recipe: Callable[..., Path], capsys: pytest.CaptureFixture
) -> Callable[..., Path]:
    """Run a table to its end, in this process, and say where."""

    def run(table: dict, *options: str, name: str = "run") -> Path:
        out = tmp_path / name
        status = cli.run([str(write_recipe(table, name)), "--out", str(out), *options])
        assert status == 0, capsys.readouterr().err
        return out

    return run


@pytest.fixture
def plugin_folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder of plugins, given as NAME=SOURCE."""

    def make(**sources: str) -> Path:
        folder = tmp_path / "plugin_folder"
        folder.mkdir(exist_ok=True)
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(dedent(source))
        return folder

    return make


@pytest.fixture
def load_with(plugin_folder: Callable[..., Path]) -> Callable[..., Plugins]:
    """Load the backbone `tiny` and plugins given as NAME=SOURCE."""
    return lambda **sources: load_plugins([TINY, plugin_folder(**sources)])


@pytest.fixture
def jt_convert(tmp_path, capsys) -> Callable[..., Path]:
    """Convert a file, and say where to."""

    def convert(source: Path, *options: str, name: str = "converted") -> Path:
        out = tmp_path / f"{name}.safetensors"
        assert cli.convert([str(source), *options, "--out", str(out)]) == 0, capsys.readouterr().err
        return out

    return convert
