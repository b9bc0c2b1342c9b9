"""Runs with the denoiser in few bits and other optimizers: whole, stopped, sampled, refused."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints.cogvideox import build
from safetensors import safe_open
from safetensors.torch import load_file

from jtcore import cli

SIZE = [32, 48]
ADAPTER = "adapters/joint.safetensors"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("weights"), "5b")


@pytest.fixture
def recipe(table, data, weights) -> Callable[..., dict]:
    """A GLoRA of `visual` in two steps on a tiny CogVideoX, nothing sampled."""

    def on(**memory: object) -> dict:
        motion = {"source": str(data / "motion"), "size": SIZE, "frames": 9, "short": "repeat"}
        subject = {"source": str(data / "subject"), "size": SIZE}
        changed = table | {
            "backbone": {"kind": "cogvideox", "weights": str(weights)},
            "data": {"subject": subject, "motion": motion},
            "engine": {"gradient_checkpointing": True, "memory": memory},
            "stage": {"joint": table["stage"]["joint"] | {"steps": 2}},
            "checkpoint": {"every": 1},
        }
        del changed["sample"], changed["metric"]
        return changed

    return on


@pytest.fixture
def trained(recipe, jt_run) -> Callable[..., dict[str, torch.Tensor]]:
    """The adapter of a run with such options."""
    made: dict[str, dict] = {}

    def run(**memory: object) -> dict[str, torch.Tensor]:
        name = json.dumps(memory)
        if name not in made:
            made[name] = load_file(jt_run(recipe(**memory), name=f"run{len(made)}") / ADAPTER)
        return made[name]

    return run


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# Whole


@pytest.mark.parametrize("base", ["int8", "fp8", "nf4"])
def test_an_adapter_learns_nearly_the_same_on_few_bits(trained, base):
    full, found = trained(), trained(base=base)
    assert not same(full, found)
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    for name, weight in found.items():
        assert weight.isfinite().all()
        if "up" in name:  # which begin with zeros, and go where the gradient's signs say
            agree = (weight.sign() == full[name].sign()).float().mean()
            assert agree > 0.8


def test_what_is_exact_stays_so_on_few_bits(trained):
    exact = {"stream_blocks": 1, "checkpoints": "host", "optimizer": "host"}
    assert same(trained(base="nf4"), trained(base="nf4", **exact))


def test_an_optimizer_on_the_host_changes_nothing(trained):
    assert same(trained(), trained(optimizer="host"))


@pytest.mark.parametrize("adapter", ["dora", "lora"])
def test_methods_of_peft_are_trained_on_few_bits(recipe, jt_run, adapter):
    table = recipe(base="int8")
    table["engine"]["precision"] = "bf16"
    table["adapter"]["joint"] = {"kind": "peft", "method": adapter, "targets": "visual"}
    table["adapter"]["joint"]["options"] = {"r": 2}
    found = load_file(jt_run(table) / ADAPTER)
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    assert all(weight.any() for name, weight in found.items() if "lora_B" in name)


# Stopped


@pytest.mark.parametrize(
    "memory", [{"base": "nf4", "optimizer": "8bit"}, {"base": "int8", "optimizer": "host"}]
)
def test_a_resumed_run_has_the_same_base_and_state(recipe, jt_run, tmp_path, memory):
    straight, stopped = jt_run(recipe(**memory), name="straight"), tmp_path / "stopped"
    shutil.copytree(straight, stopped)
    (stopped / "result.json").unlink()
    shutil.rmtree(stopped / "adapters")
    (stopped / "checkpoints/step-00000002.safetensors").unlink()

    assert cli.run(["--resume", str(stopped)]) == 0
    assert (stopped / ADAPTER).read_bytes() == (straight / ADAPTER).read_bytes()


# Sampled


def test_an_adapter_tells_on_what_it_was_trained(recipe, jt_run, tmp_path, capsys):
    path = jt_run(recipe(base="int8")) / ADAPTER
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["jtcore-adapter-1"])
    assert facts["engine"] == {"precision": "fp32", "memory": {"base": "int8"}}

    told = f"{path}: was trained on int8 weights of the backbone, and is sampled on full ones"
    videos = {}
    for name, options in {"as it was": (), "full": ("--set", "engine.memory.base=false")}.items():
        out = tmp_path / name
        shape = ("--frames", "9", "--size", *map(str, SIZE), "--steps", "2")
        given = [str(path), "--prompt", "a wug", "--out", str(out), *shape, *options]
        assert cli.sample(given) == 0, capsys.readouterr().err
        assert (told in capsys.readouterr().out.splitlines()) == bool(options)
        (video,) = out.rglob("*.mp4")
        videos[name] = video.read_bytes()
    assert videos["as it was"] != videos["full"]


def test_an_adapter_of_whole_weights_says_nothing_of_memory(recipe, jt_run):
    with safe_open(jt_run(recipe()) / ADAPTER, "pt") as file:
        assert json.loads(file.metadata()["jtcore-adapter-1"])["engine"] == {"precision": "fp32"}


# Refused


def refused(table: dict, write_recipe, capsys) -> list[str]:
    """What --check says."""
    assert cli.run([str(write_recipe(table)), "--check"]) == 2
    return capsys.readouterr().err.splitlines()


def test_a_missing_library_is_told(recipe, write_recipe, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert refused(recipe(base="nf4", optimizer="8bit"), write_recipe, capsys) == [
        "engine.memory.optimizer: '8bit' needs bitsandbytes: pip install 'jtcore[lowbit]'",
        "engine.memory.base: 'nf4' needs bitsandbytes: pip install 'jtcore[lowbit]'",
    ]


def test_weights_in_few_bits_are_not_trained(recipe, write_recipe, capsys):
    table = recipe(base="int8")
    table["adapter"]["joint"] = {"kind": "weights", "targets": "visual"}
    (told,) = refused(table, write_recipe, capsys)
    assert told == (
        "adapter.joint: `targets`: 12 layers, the first 'transformer_blocks.0.attn1.to_q', are"
        " stored in few bits (engine.memory.base), and have no weights to begin from; choose"
        " others, leave them out with `but`, or take the option away"
    )


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (
            {"kind": "deepspeed", "memory": {"optimizer": "8bit"}},
            "engine.memory.optimizer: DeepSpeed divides and moves the optimizer's state itself;"
            " leave it out, or take engine.deepspeed.offload_optimizer",
        ),
        (
            {"kind": "deepspeed", "deepspeed": {"stage": 3}, "memory": {"base": "int8"}},
            "engine.memory.base: engine.deepspeed.stage = 3 divides the frozen weights, and none of"
            " few bits; take stage = 2",
        ),
    ],
)
def test_what_deepspeed_does_itself_is_not_asked_twice(recipe, write_recipe, capsys, engine, told):
    assert refused(recipe() | {"engine": engine}, write_recipe, capsys) == [told]


def test_an_optimizer_of_a_plugin_is_not_taken_for_another(
    recipe, write_recipe, plugin_folder, tmp_path, capsys
):
    folder = plugin_folder(
        sgd="""
        from torch.optim import SGD
        from jtcore import hookimpl

        @hookimpl
        def jt_make_optimizer(stage, parameters):
            return SGD([p for group in parameters.values() for p in group], stage.lr)
        """
    )
    given = ["--out", str(tmp_path / "run"), "--plugin-folder", str(folder), "--quiet"]
    assert cli.run([str(write_recipe(recipe(optimizer="8bit"))), *given]) == 2
    assert capsys.readouterr().err == (
        "engine.memory.optimizer: '8bit' is asked for, and a plugin makes the optimizer of"
        " stage.joint, a SGD without `kept = '8bit'`; leave one of them out\n"
    )
