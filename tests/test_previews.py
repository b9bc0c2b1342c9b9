"""Samples while training goes on: what they show, and that nothing else can tell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jtcore import cli
from jtcore.media import read_sample
from jtcore.previews import PARENT, within_peak

TINY = Path(__file__).parent / "tiny"
ADAPTER = "adapters/joint.safetensors"
LARGE = """
    import torch
    from attrs import frozen
    from torch import nn
    from jtcore import hookimpl
    from jtcore.adapter import Adapter

    @frozen
    class Large:
        targets: str

        def attach(self, backbone, others):
            return Gain(backbone.targets(self.targets))

    class Gain(Adapter):
        asked = False

        def __init__(self, targets):
            super().__init__()
            self.gain = nn.Parameter(torch.zeros(()))
            for module in targets.values():
                module.register_forward_hook(self.multiply)

        def multiply(self, module, inputs, output):
            if self.current is None:
                return None
            if not self.training and not self.asked:
                self.asked = True
                raise torch.OutOfMemoryError("Tried to allocate 80.00 GiB.\\nMore of it.")
            return output * (1 + self.gain)

    @hookimpl
    def jt_adapters():
        return {"large": Large}
"""


@pytest.fixture(scope="module")
def recipe(data) -> dict:
    """Six steps with dropout, and a preview of two prompts after every other one."""
    branch = {"data": ["motion"], "adapters": ["joint"], "losses": {"all": {"kind": "diffusion"}}}
    shape = {"size": [24, 24], "frames": 3}
    sample = {"prompts": ["a wug", "two wugs", "three"], "seeds": [5, 6], "steps": 2, **shape}
    return {
        "backbone": {"kind": "tiny"},
        "plugins": {"folders": [str(TINY)]},
        "data": {"motion": {"source": str(data / "motion"), **shape}},
        "adapter": {"joint": {"kind": "glora", "targets": "visual", "rank": 2, "dropout": 0.3}},
        "stage": {"joint": {"steps": 6, "lr": 0.01, "branch": {"joint": branch}}},
        "sample": sample | {"preview": {"every": 2, "prompts": 2}},
        "checkpoint": {"every": 1, "keep": 99},
    }


def finish(table: dict, folder: Path, *options: str) -> Path:
    """Run a recipe to its end."""
    path, run = folder / "recipe.toml", folder / "run"
    path.write_text(tomli_w.dumps(table))
    assert cli.run([str(path), "--out", str(run), *options]) == 0
    return run


@pytest.fixture(scope="module")
def straight(recipe, tmp_path_factory) -> Path:
    """A run with previews, which nobody writes to."""
    return finish(recipe, tmp_path_factory.mktemp("straight"))


@pytest.fixture
def copied(straight, tmp_path) -> Path:
    """The run, before it had ended: four of its steps are in the newest checkpoint."""
    run = tmp_path / "copied"
    shutil.copytree(straight, run)
    for path in (run / "result.json", *run.glob("checkpoints/step-0000000[56]*")):
        path.unlink()
    return run


def files(run: Path) -> list[str]:
    folder = run / "previews"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def shown(run: Path) -> dict[str, list[int]]:
    """The steps of previews in TensorBoard, by what they are called."""
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    tags = [tag for tag in found.Tags()["images"] if tag.startswith("previews/")]
    return {tag: [event.step for event in found.Images(tag)] for tag in tags}


WHOLE = [f"step-0000000{step}/0{prompt}-seed5.mp4" for step in (2, 4, 6) for prompt in (0, 1)]


def test_the_first_prompts_are_shown_every_so_many_steps(straight):
    assert files(straight) == WHOLE
    assert read_sample(straight / "previews" / WHOLE[0])[0].shape[1] == 3  # frames
    labels = ("previews/a wug (seed 5)", "previews/two wugs (seed 5)")
    assert shown(straight) == {label: [2, 4, 6] for label in labels}


def test_training_cannot_tell_that_there_are_previews(recipe, straight, tmp_path):
    sample = {key: value for key, value in recipe["sample"].items() if key != "preview"}
    expected = load_file(finish(recipe | {"sample": sample}, tmp_path) / ADAPTER)
    found = load_file(straight / ADAPTER)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


ENGINES = {"ddp": {"kind": "ddp"}, "deepspeed": {"kind": "deepspeed", "deepspeed": {"stage": 2}}}


@pytest.mark.slow  # processes import torch
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_of_two_processes_the_first_makes_them_and_training_cannot_tell(recipe, engine, tmp_path):
    table = recipe | {"engine": {"device": "cpu", "threads": 1, **engine}}
    plain = {key: value for key, value in recipe["sample"].items() if key != "preview"}
    runs = [
        _launched(table | {"sample": sample}, tmp_path / name)
        for name, sample in {"plain": plain, "shown": recipe["sample"]}.items()
    ]
    assert files(runs[0]) == [] and files(runs[1]) == WHOLE
    assert set(shown(runs[1])) == {"previews/a wug (seed 5)", "previews/two wugs (seed 5)"}
    expected, found = (load_file(run / ADAPTER) for run in runs)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def _launched(table: dict, folder: Path) -> Path:
    """Run to its end in two processes, by a launcher."""
    folder.mkdir()
    recipe, run = folder / "recipe.toml", folder / "run"
    recipe.write_text(tomli_w.dumps(table))
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", *launcher, "-m", "jtcore.cli", "run", recipe, "--out", run]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return run


def test_the_last_preview_is_what_is_sampled_in_the_end(straight):
    for name in ("00-seed5.mp4", "01-seed5.mp4"):
        sampled = (straight / "samples/adapted" / name).read_bytes()
        assert (straight / "previews/step-00000006" / name).read_bytes() == sampled
        assert (straight / "previews/step-00000002" / name).read_bytes() != sampled


def test_a_preview_without_memory_is_left_out(recipe, tmp_path, plugin_folder, capsys):
    table = recipe | {"adapter": {"joint": {"kind": "large", "targets": "visual"}}}
    run = finish(table, tmp_path, "--plugin-folder", str(plugin_folder(large=LARGE)))
    assert files(run) == WHOLE[2:]
    told = "the preview of step 2 is left out: Tried to allocate 80.00 GiB."
    assert told in capsys.readouterr().out.splitlines()
    gains = load_file(run / ADAPTER).values()
    assert all(gain != 0 for gain in gains)


def test_a_resumed_run_makes_what_is_lacking_alone(copied, straight):
    for name in WHOLE[3:5]:  # one that was stopped before it, and one that is to come
        (copied / "previews" / name).unlink()
    before = {name: (copied / "previews" / name).stat().st_mtime_ns for name in WHOLE[:3]}

    assert cli.run(["--resume", str(copied)]) == 0
    assert files(copied) == WHOLE
    for name in WHOLE:
        path = copied / "previews" / name
        assert path.read_bytes() == (straight / "previews" / name).read_bytes()
        assert name not in before or path.stat().st_mtime_ns == before[name]


@pytest.fixture
def waiting(copied) -> Path:
    """The video of latents that are not decoded."""
    video = copied / "previews" / WHOLE[0]
    video.unlink()
    save_file({"latents": torch.zeros(1, 3, 3, 6, 6)}, video.with_suffix(".safetensors"))
    return video


def decode(run: Path, parent: int) -> None:
    """In a process of its own, as a run has it done."""
    command = [sys.executable, "-m", "jtcore.previews", str(run)]
    environment = os.environ | {PARENT: str(parent), "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_process_decodes_what_waits(copied, waiting):
    decode(copied, os.getpid())
    assert read_sample(waiting)[0].shape[1] == 3
    assert not waiting.with_suffix(".safetensors").exists()


def test_it_ends_when_the_run_has(copied, waiting):
    decode(copied, parent=1)
    assert not waiting.exists()


def test_latents_of_a_killed_run_are_decoded_when_it_goes_on(copied, waiting):
    assert cli.run(["--resume", str(copied)]) == 0
    assert files(copied) == WHOLE
    assert shown(copied)["previews/a wug (seed 5)"].count(2) == 2  # the copied, and this


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_more_of_a_gpu_is_taken_than_before():
    device = torch.device("cuda")
    torch.empty(2**28, dtype=torch.uint8, device=device)
    peak = torch.cuda.max_memory_reserved(device)
    with within_peak(device):
        torch.empty(2**27, dtype=torch.uint8, device=device)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(2**30, dtype=torch.uint8, device=device)
    assert torch.cuda.max_memory_reserved(device) == peak
    torch.empty(2**30, dtype=torch.uint8, device=device)
