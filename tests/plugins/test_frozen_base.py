"""Training leaves the denoiser as it was, to the last bit, and changes only what is trained."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from attrs import frozen
from checkpoints.cogvideox import build
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan
from torch import Tensor, nn

from jtcore import hookimpl
from jtcore.engine import Engine
from jtcore.experiment import prepare
from jtcore.model import load_model
from jtcore.recipe import build_recipe
from jtcore.run import Run
from jtcore.signals import Stop
from jtcore.trainer import Trainer


@frozen
class Case:
    """A backbone, and what it is trained in"""

    build: Callable[[Path], Path]
    kind: str
    precision: str
    frames: int = 9
    options: Mapping[str, str] = {}


build_stored = partial(build_zeroscope, bins=True)  # in float16, as on the hub
CASES = {
    "cogvideox 5b": Case(partial(build, flavour="5b"), "cogvideox", "bf16"),
    "cogvideox 2b": Case(partial(build, flavour="2b"), "cogvideox", "fp16"),
    "wan": Case(build_wan, "wan", "bf16"),
    "zeroscope": Case(build_stored, "zeroscope", "fp16", 3),
    "zeroscope bypassing": Case(
        build_stored, "zeroscope", "fp16", 3, {"image_mode": "bypass_temporal"}
    ),
}
ADAPTERS = {
    "gated": {"kind": "glora", "targets": "visual", "rank": 2},
    "whole": {"kind": "weights", "targets": "text_kv"},
    "idle": {"kind": "lora", "targets": "visual", "rank": 2},
}


@pytest.fixture
def trainer(table, data, plugins, tmp_path) -> Callable[[Case], Trainer]:
    """Three steps on pictures and videos, of two adapters out of three that are on."""

    def made(case: Case) -> Trainer:
        losses = {"error": {"kind": "diffusion"}, "motion": {"kind": "ait", "on": "video"}}
        branch = {"data": ["subject", "motion"], "adapters": [*ADAPTERS], "losses": losses}
        first = branch | {"trains": ["gated", "whole"]}
        stage = {"steps": 3, "lr": 0.01, "weight_decay": 0.0}
        motion = {"frames": case.frames, "short": "repeat"}
        weights = str(case.build(tmp_path / "weights"))
        changed = table | {
            "backbone": {"kind": case.kind, "weights": weights, **case.options},
            "data": {
                "subject": {"source": str(data / "subject"), "size": [32, 48]},
                "motion": {"source": str(data / "motion"), "size": [32, 48], **motion},
            },
            "adapter": ADAPTERS,
            "engine": {"gradient_checkpointing": True, "precision": case.precision},
            "stage": {
                "first": stage | {"branch": {"both": first}},
                "second": stage | {"branch": {"both": branch}},
            },
        }
        del changed["sample"], changed["metric"]
        recipe = build_recipe(changed, plugins)
        run, engine = Run(tmp_path, lambda line: None), Engine(recipe.engine)
        found = prepare(recipe, engine, run, Stop())
        model = load_model(recipe.backbone, recipe.adapter, found.texts, engine, recipe.seed)
        return Trainer(recipe, plugins.hook, run, model, found.streams, Stop())

    return made


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, those that are never saved among them."""
    both = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in both}


def changed(before: Mapping[str, Tensor], module: nn.Module) -> set[str]:
    now = tensors(module)
    assert now.keys() == before.keys()
    return {name for name, was in before.items() if not torch.equal(now[name], was)}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nothing_but_what_a_stage_trains_changes(trainer, case):
    ready = trainer(case)
    denoiser, adapters = ready.model.backbone.denoiser, ready.model.adapters
    base, began = tensors(denoiser), {name: tensors(each) for name, each in adapters.items()}
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[case.precision]
    assert half in {weight.dtype for weight in base.values()}

    ready.train_stage("first", 0, None)

    assert changed(base, denoiser) == set()
    for name in ("gated", "whole"):
        assert changed(began[name], adapters[name]) == began[name].keys() != set()
    assert changed(began["idle"], adapters["idle"]) == set()


@frozen
class Meddler:
    """An observer that adds one bit to one number of the base, in each step."""

    denoiser: nn.Module
    name: str

    @hookimpl
    def jt_step_finished(self) -> None:
        self.denoiser.get_parameter(self.name).data.view(-1)[-1:].view(torch.int16).add_(1)


def test_a_base_that_one_bit_is_added_to_is_seen(trainer, plugins):
    ready = trainer(CASES["cogvideox 5b"])
    denoiser = ready.model.backbone.denoiser
    base, name = tensors(denoiser), "transformer_blocks.1.ff.net.2.weight"
    plugins.manager.register(meddler := Meddler(denoiser, name))
    try:
        ready.train_stage("first", 0, None)
    finally:
        plugins.manager.unregister(meddler)
    assert changed(base, denoiser) == {name}
