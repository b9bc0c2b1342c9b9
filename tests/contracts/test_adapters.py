"""What every adapter must do, on a CogVideoX of two small blocks."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from jtcore import JtError
from jtcore.adapter import Adapter, switched_on
from jtcore.checkpointing import checkpoint_gradients
from jtcore.mentions import named_adapters
from jtcore.plugins import load_plugins
from jtplugins.adapters.bottleneck import ResidualBottleneck
from jtplugins.adapters.dualreal import DualReal
from jtplugins.adapters.glora import GLoRA
from jtplugins.adapters.lora import LoRA
from jtplugins.adapters.peft import Peft
from jtplugins.adapters.stage_blender import StageBlender
from jtplugins.adapters.token import Token
from jtplugins.adapters.weights import Weights

ADAPTERS = [
    LoRA("visual", rank=4),
    LoRA("attention", rank=3, alpha=6.0, init="kaiming", dropout_on="input"),
    GLoRA("visual", rank=4),
    GLoRA("feed_forward", rank=4, gate_over="batch", gate_init="kaiming", dropout=0.0),
    Weights("attention"),
    Weights(("text_kv", "feed_forward")),
    Peft("visual", "lora", {"r": 3, "lora_dropout": 0.3}),
    Peft("visual", "dora", {"r": 3}),
    Peft("attention", "loha", {"r": 2}),
    Peft("attention", "lokr", {"r": 2}),
    Peft("visual", "oft", {"oft_block_size": 4}),
    Peft("visual", "vera", {"r": 4}),
    Peft("attention", "ia3"),
    ResidualBottleneck("visual"),
    ResidualBottleneck("joint", width=3, position="serial", text=True),
    DualReal(width=4),
    DualReal(width=4, skip=False, activation="after", condition="multiply", added="block"),
    StageBlender(groups=2, width=16),
    StageBlender(groups=1, budget=0.4, width=16, modulated="after"),
]
DRAW_NOTHING = (Weights,)  # the weights that they begin with are the denoiser's
FIXED = ("oft", "vera", "ia3")  # of peft's methods, those that begin with what is not random
REPLACE = (Weights,)  # what the denoiser computes with: a module has one of them at most
PLAIN_LORA = (LoRA,)  # and peft's own
BESIDE = (ResidualBottleneck, DualReal)  # attentions and feed-forwards, not the linears in them
OF_TEXT = (Token,)  # which it changes before the denoiser: tests/plugins/test_token.py
every_adapter = pytest.mark.parametrize("spec", ADAPTERS, ids=lambda spec: type(spec).__name__)
every_update = pytest.mark.parametrize(  # of the denoiser itself, and not of other adapters
    "spec", [s for s in ADAPTERS if not named_adapters(s)], ids=lambda spec: type(spec).__name__
)
SCALE = 1.5


def attach(spec, backbone, seed: int = 0) -> Adapter:
    others = named(spec, backbone)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapter = spec.attach(backbone, others).eval()
    adapter.beside = tuple(others.values())  # a tuple, for they are none of its modules
    return adapter


def named(spec, backbone) -> dict[str, Adapter]:
    """Those that its options name, new and always the same, as if they had been trained."""
    weighed = DualReal(width=4, weight=getattr(spec, "budget", 0.0) / 2)
    names = enumerate(named_adapters(spec))
    return {name: train(attach(weighed, backbone), seed) for seed, name in names}


def train(adapter: Adapter, seed: int = 7) -> Adapter:
    """Give it weights as if it had been trained."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=0.2)
    return adapter


def answer(backbone, question, *adapters: Adapter, scale: float | Tensor = SCALE) -> Tensor:
    with torch.no_grad(), on(question, *adapters, scale=scale):
        return question.put(backbone)


def without(spec, backbone, question) -> Tensor:
    """What is answered before an adapter is attached."""
    return answer(backbone, question, *named(spec, backbone).values(), scale=1.0)


def on(question, *adapters: Adapter, scale: float | Tensor = SCALE):
    """They, and at scale 1 those that they are beside."""
    beside = {other: 1.0 for each in adapters for other in getattr(each, "beside", ())}
    return switched_on(beside | dict.fromkeys(adapters, scale), len(question.latents))


def gradients(backbone, question, adapter: Adapter) -> dict[str, Tensor]:
    """Of the mean square of the answer, by name, with dropout drawn from one seed."""
    adapter.train().zero_grad()
    torch.manual_seed(3)
    with on(question, adapter):
        question.put(backbone).square().mean().backward()
    return {name: weight.grad for name, weight in adapter.named_parameters()}


def swap(first: Adapter, second: Adapter) -> None:
    """Exchange their weights."""
    weights = deepcopy(first.state_dict())
    first.load_state_dict(second.state_dict())
    second.load_state_dict(weights)


def test_every_shipped_adapter_is_on_the_list():
    shipped = load_plugins().families["adapters"]
    assert set(shipped.values()) <= {type(spec) for spec in ADAPTERS} | {*OF_TEXT}


@every_adapter
def test_an_adapter_changes_nothing_before_it_is_trained(spec, backbone, question):
    """But for DualReal's as released, which add a share of what they read."""
    before = without(spec, backbone, question)
    adapter = attach(spec, backbone)
    after = answer(backbone, question, adapter)
    if named_adapters(spec):  # whose weights are the same numbers, rounded elsewhere
        torch.testing.assert_close(after, before)
        return
    assert torch.equal(after, before) == (not getattr(spec, "skip", False))


@every_adapter
def test_a_trained_adapter_changes_the_answer(spec, backbone, question):
    before = without(spec, backbone, question)
    adapter = train(attach(spec, backbone))
    assert (answer(backbone, question, adapter) - before).abs().min() > 0


@every_adapter
def test_off_is_off_even_with_nan_weights(spec, backbone, question):
    before = without(spec, backbone, question)
    adapter = attach(spec, backbone)
    for weight in adapter.parameters():
        torch.nn.init.constant_(weight, torch.nan)
    assert torch.equal(answer(backbone, question, *adapter.beside, scale=1.0), before)


@every_adapter
def test_gradients_reach_only_the_adapter_that_is_on(spec, backbone, question):
    adapter, other = (train(attach(spec, backbone)) for _ in range(2))
    assert all(grad.abs().max() > 0 for grad in gradients(backbone, question, adapter).values())
    assert all(weight.grad is None for weight in other.parameters())
    assert all(weight.grad is None for weight in backbone.denoiser.parameters())


@every_adapter
def test_attaching_leaves_the_backbones_names_alone(spec, backbone):
    before = {name: id(module) for name, module in backbone.denoiser.named_modules()}
    attach(spec, backbone)
    assert {name: id(module) for name, module in backbone.denoiser.named_modules()} == before


@every_update
def test_names_begin_with_the_target_whatever_else_is_attached(spec, backbone):
    alone = list(attach(spec, backbone).state_dict())
    assert list(attach(spec, backbone).state_dict()) == alone
    targets = backbone.targets(spec.targets)
    if isinstance(spec, BESIDE):
        targets = backbone.sites(spec.targets)
    if getattr(spec, "added", None) == "block":
        targets = backbone.blocks()
    begun = {name: [t for t in targets if name.startswith(f"{t}.")] for name in alone}
    assert all(len(those) == 1 for those in begun.values())
    assert {those[0] for those in begun.values()} == targets.keys()


@every_adapter
def test_weights_follow_the_global_seed(spec, backbone):
    first, again, other = (attach(spec, backbone, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    differs = any(not torch.equal(first[name], other[name]) for name in first)
    fixed = isinstance(spec, DRAW_NOTHING) or getattr(spec, "method", None) in FIXED
    assert differs == (not fixed)


@every_adapter
def test_a_saved_adapter_answers_the_same_when_loaded(spec, backbone, question, tmp_path: Path):
    adapter = train(attach(spec, backbone))
    expected = answer(backbone, question, adapter)
    save_file(adapter.state_dict(), tmp_path / "adapter.safetensors")
    loaded = attach(spec, backbone, seed=1)
    loaded.load_state_dict(load_file(tmp_path / "adapter.safetensors"))
    assert torch.equal(answer(backbone, question, loaded), expected)


@every_adapter
def test_gradients_are_exact_under_checkpointing(spec, backbone, question):
    adapter = train(attach(spec, backbone))
    plain = gradients(backbone, question, adapter)
    checkpoint_gradients(backbone)
    checkpointed = gradients(backbone, question, adapter)
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


@every_adapter
def test_a_tensor_of_equal_scales_is_a_scale(spec, backbone, question):
    adapter = train(attach(spec, backbone))
    alike = torch.full((2, 1, 1), SCALE)
    expected = answer(backbone, question, adapter)
    torch.testing.assert_close(answer(backbone, question, adapter, scale=alike), expected)


@every_update
def test_stacked_adapters_add_up_in_any_order(spec, backbone, question):
    first, second = (train(attach(spec, backbone), seed) for seed in (1, 2))
    if isinstance(spec, REPLACE):
        with pytest.raises(JtError, match=r"have their weights replaced by 'first' already; "):
            spec.attach(backbone, {"first": first})
        return
    expected = answer(backbone, question, first, second)
    swap(first, second)
    swapped = answer(backbone, question, first, second)
    if getattr(spec, "position", None) == "serial":  # each reads what the one before has added
        assert (swapped - expected).abs().max() > 1e-3
        return
    torch.testing.assert_close(swapped, expected)


@every_adapter
def test_weights_stay_float32_on_a_backbone_in_bfloat16(spec, backbone, question):
    exact = answer(backbone, question, train(attach(spec, backbone)))
    torch.nn.Module.to(backbone.denoiser, torch.bfloat16)
    adapter = train(attach(spec, backbone))
    found = gradients(backbone, question, adapter)
    assert {grad.dtype for grad in found.values()} == {torch.float32}
    rounded = answer(backbone, question, adapter.eval())
    assert (rounded - exact).norm() < 0.03 * exact.norm()


@every_adapter
def test_autocast_to_bfloat16_rounds_and_no_more(spec, backbone, question):
    adapter = train(attach(spec, backbone))
    exact = answer(backbone, question, adapter)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = answer(backbone, question, adapter)
        found = gradients(backbone, question, adapter)
    assert (rounded - exact).norm() < 0.03 * exact.norm()
    assert {grad.dtype for grad in found.values()} == {torch.float32}


@every_adapter
def test_an_adapter_is_the_plain_lora_that_it_says_or_says_that_it_is_none(spec, backbone):
    adapter = train(attach(spec, backbone))
    if not (isinstance(spec, PLAIN_LORA) or getattr(spec, "method", None) == "lora"):
        with pytest.raises(
            JtError, match=r"^it is a gated LoRA: |^it is no low rank: |LoRA of it$"
        ):
            adapter.low_rank()
        return
    updates = adapter.low_rank()
    assert updates.keys() == backbone.targets(spec.targets).keys()
    for name, (down, up) in updates.items():
        linear = backbone.denoiser.get_submodule(name)
        x = torch.randn(1, 5, linear.in_features)
        with switched_on({adapter: SCALE}, 1):
            found = linear(x)
        torch.testing.assert_close(found, linear(x) + SCALE * x @ down.T @ up.T)


@every_adapter
def test_an_adapter_of_shapes_alone_is_attached_without_drawing_weights(spec, backbone):
    others = named(spec, backbone)
    backbone.denoiser.to("meta")
    before = torch.get_rng_state()
    adapter = spec.attach(backbone, others)
    assert {weight.device.type for weight in adapter.parameters()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)
