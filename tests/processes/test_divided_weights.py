"""Stage 3 in a world of one process: what is gathered where it is met trains as on one process."""

import os
from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
from checkpoints.bare import EVERY, Asked, ask, build, questions
from torch import Tensor, distributed, nn
from torch.optim import SGD

from jtcore.adapter import hooks_of, switched_on
from jtcore.branch import training_only
from jtcore.checkpointing import checkpoint_gradients
from jtcore.engines import make_engine
from jtcore.settings import DeepSpeed, EngineSettings
from jtcore.types import Backbone
from jtplugins.adapters.glora import GLoRA
from jtplugins.adapters.lora import LoRA
from jtplugins.adapters.peft import Peft
from jtplugins.adapters.weights import Weights

# DeepSpeed leaves small weights whole, and those of these networks all are
RAW = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
WAYS = {
    "at the end": DeepSpeed(stage=3, raw=RAW),
    "at once": DeepSpeed(stage=3, raw=RAW, bucket=50),
    "offloaded": DeepSpeed(3, offload_optimizer=True, offload_parameters=True, raw=RAW),
}
PLAIN = EngineSettings(device="cpu")


def divided(way: str = "at the end", precision: str = "fp32") -> EngineSettings:
    return EngineSettings(device="cpu", precision=precision, kind="deepspeed", deepspeed=WAYS[way])


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[None]:
    """Of one process, and no more of it when it is left."""
    before = dict(os.environ)
    os.environ["DS_ACCELERATOR"] = "cpu"
    yield
    import deepspeed

    distributed.destroy_process_group()
    deepspeed.comm.comm.cdb = None
    os.environ.clear()
    os.environ.update(before)


class Training:
    """Of adapters on a denoiser, all of which are on."""

    def __init__(
        self, kind: str, specs: Mapping[str, object], settings: EngineSettings, checkpoints: bool
    ) -> None:
        self.kind, self.engine = kind, make_engine(settings)
        self.backbone: Backbone = build(kind, self.engine.dtype, layers=2)
        torch.manual_seed(1)
        self.adapters = {n: spec.attach(self.backbone, {}).train() for n, spec in specs.items()}
        if checkpoints:
            checkpoint_gradients(self.backbone)

    def stage(self, *trained: str) -> dict[str, Tensor]:
        """What is saved. In the first pass of each step, nothing but the first of those trained has
        a gradient."""
        engine, adapters = self.engine, {name: self.adapters[name] for name in trained}
        optimizer = SGD([p for adapter in adapters.values() for p in adapter.parameters()], lr=0.1)
        engine.prepare(optimizer, adapters, self.backbone.denoiser, 1.0)
        for step in range(3):
            engine.clear(optimizer)
            pictures, videos = questions(self.kind, torch.Generator().manual_seed(step))
            self.run(pictures, trained[:1])
            self.run(videos, trained)
            engine.update(optimizer, 1.0)
        saved = {name: engine.state_dict(adapter) for name, adapter in adapters.items()}
        engine.finish()
        return {
            f"{owner} {n}": x.clone() for owner, state in saved.items() for n, x in state.items()
        }

    def run(self, question: Asked, trained: Sequence[str]) -> Tensor:
        """The answer to a pass, forward and backward."""
        on = switched_on(dict.fromkeys(self.adapters.values(), 1.0), 2)
        torch.manual_seed(5)  # of dropout
        with training_only(self.adapters, tuple(trained)), on:
            with self.engine.autocast():
                answer = self.backbone.predict(*question)
            self.engine.backward(answer.float().square().mean())
        return answer.detach()


def assert_alike(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys() != set()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=2e-6, msg=name)


ALL = {"weights": Weights("all"), "gated": GLoRA("visual", rank=2), "plain": LoRA("visual", rank=2)}


def assert_trains_alike(kind: str, way: str, checkpoints: bool) -> None:
    plain = Training(kind, ALL, PLAIN, checkpoints)
    parts = Training(kind, ALL, divided(way), checkpoints)
    for trained in (("weights", "gated"), ("plain",)):  # and then the weights are on, but frozen
        assert_alike(parts.stage(*trained), plain.stage(*trained))


def test_all_weights_of_blocks_that_have_some_of_their_own_train_as_on_one_process():
    assert_trains_alike("wan", "at the end", checkpoints=True)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["at once", "offloaded"])
def test_all_weights_are_trained_however_they_are_reduced_and_kept(way):
    assert_trains_alike("wan", way, checkpoints=True)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("kind", EVERY)
def test_all_weights_of_every_network_train_as_on_one_process(kind, checkpoints):
    assert_trains_alike(kind, "at the end", checkpoints)


def test_what_other_tools_name_is_saved_whole():
    specs = {"peft": Peft("attention", "lora", {"r": 2})}
    plain, parts = (Training("wan", specs, settings, False) for settings in (PLAIN, divided()))
    assert_alike(parts.stage("peft"), plain.stage("peft"))


def test_large_weights_are_whole_in_no_place_but_where_they_are_met():
    training = Training("wan", ALL, divided(), checkpoints=True)
    met = []

    def look(module: nn.Module, inputs: object) -> None:
        met.append([weight.numel() > 0 for weight in module.parameters(recurse=False)])

    denoiser = training.backbone.denoiser
    denoiser.blocks[0].ffn.net[2].register_forward_pre_hook(look)
    weights = [*denoiser.parameters(), *training.adapters["weights"].parameters()]
    optimizer = SGD([p for each in training.adapters.values() for p in each.parameters()], lr=0.1)
    training.engine.prepare(optimizer, training.adapters, denoiser, 1.0)
    for step in range(3):
        pictures, _ = questions("wan", torch.Generator().manual_seed(step))
        training.run(pictures, list(ALL))
        training.engine.update(optimizer, 1.0)
        assert not any(weight.numel() for weight in weights)
        training.engine.clear(optimizer)
    training.engine.finish()
    assert len(met) == 6 and all(map(all, met))  # in each step's forward and once again
    assert all(weight.numel() for weight in denoiser.parameters())


def attributes(network: nn.Module) -> dict[str, list[str]]:
    return {name: sorted(vars(module)) for name, module in network.named_modules()}


def test_a_stage_leaves_no_trace():
    training = Training("wan", ALL, divided(), checkpoints=False)
    denoiser, linear = training.backbone.denoiser, nn.functional.linear
    before, hooks = attributes(denoiser), list(hooks_of(denoiser))
    training.stage("weights", "gated")
    assert attributes(denoiser) == before
    assert list(hooks_of(denoiser)) == hooks
    assert nn.functional.linear is linear


def test_sixteen_bits_round_the_answer_as_on_one_process():
    """In backward DeepSpeed adds what several layers give to one gradient in another order."""
    answers = []
    for settings in (EngineSettings(device="cpu", precision="bf16"), divided(precision="bf16")):
        training = Training("wan", ALL, settings, checkpoints=False)
        adapters, denoiser = training.adapters, training.backbone.denoiser
        optimizer = SGD([p for each in adapters.values() for p in each.parameters()], lr=0.1)
        training.engine.prepare(optimizer, adapters, denoiser, 1.0)
        answers.append(training.run(ask("wan"), list(adapters)))
        training.engine.clear(optimizer)
        training.engine.finish()
    assert torch.equal(*answers)
