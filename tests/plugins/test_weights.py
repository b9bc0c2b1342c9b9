"""Full fine-tuning as an adapter, against plain fine-tuning of the network itself."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from checkpoints.bare import ask, build
from diffusers import DDIMScheduler, UNet3DConditionModel
from torch import Tensor, nn
from torch.optim import AdamW

from jtcore import JtError
from jtcore.adapter import Adapter, switched_on
from jtcore.checkpointing import checkpoint_gradients
from jtplugins.adapters.lora import LoRA
from jtplugins.adapters.weights import Weights
from jtplugins.backbones._cogvideox import CogVideoXBackbone
from jtplugins.backbones._unet import UNetBackbone
from jtplugins.backbones._wan import WanBackbone

NEWMOVE = ("text_kv", "temporal_layers", "temporal_conv_layers")
WITHOUT_TIME = Weights("all", but=("*.temp_attentions.*", "*.temp_convs.*"))  # MotionBooth's


unet = partial(build, "unet")
wan = partial(build, "wan", layers=2)
cogvideox = partial(build, "cogvideox", layers=2)
KINDS = {UNetBackbone: "unet", WanBackbone: "wan", CogVideoXBackbone: "cogvideox"}
every_backbone = pytest.mark.parametrize(
    "build", [unet, wan, cogvideox], ids=["unet", "wan", "cogvideox"]
)


@pytest.fixture(scope="module")
def published() -> UNetBackbone:
    """Without weights: diffusers' defaults are the published size."""
    with torch.device("meta"):
        return UNetBackbone(UNet3DConditionModel(), DDIMScheduler())


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answer(backbone, *, seed: int = 1) -> Tensor:
    """Of a batch of two."""
    return ask(KINDS[type(backbone)], seed).put(backbone)


def trained(adapter: Adapter, amount: float = 0.02) -> Adapter:
    """Moved away from where it began."""
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=amount)
    return adapter.eval()


def on(backbone, adapter: Adapter, scale: float | Tensor = 1.0, *others: Adapter) -> Tensor:
    with torch.no_grad(), switched_on({adapter: scale, **dict.fromkeys(others, 1.0)}, 2):
        return answer(backbone)


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in network.state_dict().items()}


def unchanged(network: nn.Module, before: dict[str, Tensor]) -> bool:
    now = network.state_dict()
    parameters = dict(network.named_parameters())
    assert len(parameters) and all(type(one) is nn.Parameter for one in parameters.values())
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)


def plainly(build: Callable, weights: dict[str, Tensor]) -> Tensor:
    """What a network answers into which the weights are written."""
    backbone = build()
    backbone.denoiser.load_state_dict(backbone.denoiser.state_dict() | weights)
    with torch.no_grad():
        return answer(backbone)


@pytest.mark.parametrize(
    ("targets", "tensors", "millions"),
    [
        ("text_kv", 32, 25.6),
        ("temporal_layers", 442, 278.4),
        ("temporal_conv_layers", 352, 266.9),
        (NEWMOVE, 826, 570.9),
    ],
)
def test_what_newmove_trains_is_there_by_role(published, targets, tensors, millions):
    chosen = Weights(targets).attach(published, {}).state_dict()
    assert len(chosen) == tensors
    assert sum(w.numel() for w in chosen.values()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_newmoves_names_are_those_that_the_released_predicates_choose(published):
    def chosen(name: str) -> bool:
        text = "attn2" in name and ("to_k" in name or "to_v" in name)
        temporal = "temp_attentions" in name or "transformer_in" in name
        return (text and not temporal) or temporal or "temp_convs" in name

    expected = [name for name, _ in published.denoiser.named_parameters() if chosen(name)]
    assert set(Weights(NEWMOVE).attach(published, {}).state_dict()) == set(expected)


@pytest.mark.parametrize(
    ("spec", "millions"),
    [(Weights("all"), 1411.2), (WITHOUT_TIME, 871.5), (Weights("text_kv"), 25.6)],
)
def test_what_motionbooth_trains_is_there(published, spec, millions):
    chosen = spec.attach(published, {}).state_dict()
    assert sum(w.numel() for w in chosen.values()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_all_is_every_parameter_of_any_network(published):
    every = {name for name, _ in published.denoiser.named_parameters()}
    assert set(Weights("all").attach(published, {}).state_dict()) == every


def test_motionbooth_without_time_keeps_the_first_temporal_layer(published):
    chosen = WITHOUT_TIME.attach(published, {}).state_dict()
    assert any(name.startswith("transformer_in.") for name in chosen)
    assert not any("temp_attentions" in name or "temp_convs" in name for name in chosen)


@every_backbone
def test_on_it_is_the_network_with_other_weights_and_off_the_one_that_there_was(build):
    backbone = build()
    before = snapshot(backbone.denoiser)
    adapter = trained(Weights("all").attach(backbone, {}))
    with torch.no_grad():
        base = answer(backbone)
    found = on(backbone, adapter)
    assert torch.equal(found, plainly(build, adapter.state_dict()))
    assert not torch.allclose(found, base, atol=1e-3)
    assert unchanged(backbone.denoiser, before)
    with torch.no_grad():
        assert torch.equal(answer(backbone), base)


@every_backbone
@pytest.mark.parametrize("scale", [0.0, 0.3, -1.0])
def test_a_scale_goes_the_way_from_the_old_weights_to_the_new(build, scale):
    backbone = build()
    adapter = trained(Weights("all").attach(backbone, {}))
    mixed = {
        name: weight + scale * (adapter.state_dict()[name] - weight)
        for name, weight in backbone.denoiser.state_dict().items()
        if name in adapter.state_dict()
    }
    expected = plainly(build, mixed)
    assert torch.equal(on(backbone, adapter, scale), expected)
    assert torch.equal(on(backbone, adapter, torch.full((2, 1, 1), scale)), expected)


def finetuned(network: nn.Module, backbone, names: list[str], steps: int) -> None:
    """Plain fine-tuning of the parameters of these names in the network itself."""
    weights = dict(network.named_parameters())
    chosen = [weights[name].requires_grad_(True) for name in names]
    optimizer = AdamW(chosen, lr=1e-2, weight_decay=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        answer(backbone, seed=step).square().mean().backward()
        optimizer.step()


@every_backbone
@pytest.mark.parametrize("checkpointing", [False, True])
def test_ten_steps_are_those_of_plain_fine_tuning_and_change_nothing_else(build, checkpointing):
    targets = {unet: NEWMOVE, wan: ("text_kv", "temporal_layers"), cogvideox: "text_kv"}[build]
    backbone, plain = build(), build()
    before = snapshot(backbone.denoiser)
    adapter = Weights(targets).attach(backbone, {}).train()
    if checkpointing:
        checkpoint_gradients(backbone)
        backbone.denoiser.train()  # diffusers checkpoints in training mode alone
        for module in backbone.denoiser.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
    optimizer = AdamW(adapter.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(10):
        optimizer.zero_grad()
        with switched_on({adapter: 1.0}, 2):
            answer(backbone, seed=step).square().mean().backward()
        optimizer.step()
    finetuned(plain.denoiser, plain, list(adapter.state_dict()), steps=10)
    tuned = plain.denoiser.state_dict()
    assert all(torch.equal(tuned[name], own) for name, own in adapter.state_dict().items())
    rest = tuned.keys() - adapter.state_dict().keys()
    assert rest and all(torch.equal(tuned[name], before[name]) for name in rest)
    assert unchanged(backbone.denoiser, before)
    assert all(not torch.equal(own, before[n]) for n, own in adapter.state_dict().items())


@every_backbone
@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_gradients_are_exact_under_checkpointing_for_every_parameter(build, scale):
    plain, checkpointed = build(), build()
    checkpoint_gradients(checkpointed)
    found = []
    for backbone in (plain, checkpointed):
        adapter = trained(Weights("all").attach(backbone, {})).train()
        with switched_on({adapter: scale}, 2):
            answer(backbone).square().mean().backward()
        found.append({name: weight.grad for name, weight in adapter.named_parameters()})
    assert all(grad is not None for grad in found[0].values())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_lora_on_the_same_layers_adds_to_the_new_weights():
    backbone = cogvideox()
    weights = trained(Weights("attention").attach(backbone, {}))
    lora = trained(LoRA("attention", rank=2, dropout=0.0).attach(backbone, {"weights": weights}))
    name, (down, up) = next(iter(lora.low_rank().items()))
    layer, x = backbone.denoiser.get_submodule(name), draw(2, 5, 32)
    with torch.no_grad(), switched_on({weights: 0.5, lora: 2.0}, 2):
        found = layer(x)
    own = weights.get_submodule(name)
    middle = (layer.weight + own.weight) / 2, (layer.bias + own.bias) / 2
    torch.testing.assert_close(found, x @ middle[0].T + middle[1] + 2 * x @ down.T @ up.T)


def test_a_module_that_fails_has_its_own_weights_again():
    backbone = cogvideox()
    before = snapshot(backbone.denoiser)
    adapter = trained(Weights("all").attach(backbone, {}))
    inner = backbone.denoiser.transformer_blocks[1].attn1.to_q
    hook = inner.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        on(backbone, adapter)
    assert unchanged(backbone.denoiser, before)
    hook.remove()
    assert torch.isfinite(on(backbone, adapter)).all()


def test_scales_that_differ_between_samples_are_refused():
    backbone = cogvideox()
    adapter = Weights("attention").attach(backbone, {})
    with pytest.raises(JtError) as caught:
        on(backbone, adapter, torch.tensor([0.5, 1.0]).view(2, 1, 1))
    assert str(caught.value) == (
        "a `weights` adapter computes with one set of weights in a pass, so that its scale must be"
        " one number for all samples; found 0.5, 1"
    )


def test_two_of_them_on_a_module_are_refused_and_beside_each_other_they_are_not():
    backbone = unet()
    first = Weights("text_kv").attach(backbone, {})
    with pytest.raises(JtError) as caught:
        Weights("all").attach(backbone, {"cross": first})
    assert str(caught.value) == (
        "8 modules, the first 'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k', have"
        " their weights replaced by 'cross' already; choose `targets` that do not overlap, or leave"
        " them out with `but`"
    )
    second = Weights("all", but="text_kv").attach(backbone, {"cross": first})
    assert not first.state_dict().keys() & second.state_dict().keys()


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (Weights("*.ff.net.1"), "`targets`: they have no weights"),
        (Weights("text_kv", but="attention"), "`but`: they leave nothing of the targets"),
        (Weights(("text_kv", "nowhere.*")), "'nowhere.*' matched no module of UNet3DConditionMod"),
        (Weights(()), "expected a role or pattern of modules, or several; got none"),
    ],
)
def test_targets_without_weights_are_refused(spec, told):
    with pytest.raises(JtError) as caught:
        spec.attach(unet(), {})
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_on_a_network_in_half_precision_float32_weights_are_trained(half):
    backbone = unet()
    adapter = trained(Weights("all").attach(backbone, {}))
    exact = on(backbone, adapter)
    nn.Module.to(backbone.denoiser, half)
    with torch.autocast("cpu", half):
        rounded = on(backbone, adapter)
        with switched_on({adapter: 1.0}, 2):
            answer(backbone).float().square().mean().backward()
    assert (rounded.float() - exact).norm() < 0.05 * exact.norm()
    assert {weight.grad.dtype for weight in adapter.parameters()} == {torch.float32}
    assert {weight.dtype for weight in backbone.denoiser.parameters()} == {half}


def test_it_says_by_how_much_the_weights_have_moved():
    backbone = cogvideox()
    adapter = Weights("attention").attach(backbone, {})
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.mul_(1.25)
    assert adapter.train().scalars() == {}
    assert adapter.eval().scalars()["relative_update"] == pytest.approx(0.25)


def test_copies_of_a_denoiser_are_not_those_of_the_adapter():
    backbone = cogvideox()
    adapter = Weights("attention").attach(backbone, {})
    own = deepcopy(adapter.state_dict())
    with torch.no_grad():
        for weight in backbone.denoiser.parameters():
            weight.zero_()
    assert all(torch.equal(own[name], now) for name, now in adapter.state_dict().items())


def test_weights_that_are_elsewhere_until_they_are_needed_cannot_be_replaced():
    backbone = cogvideox()
    adapter = Weights("attention").attach(backbone, {})
    backbone.denoiser.transformer_blocks[1].attn1.to_k.to("meta")
    with pytest.raises(JtError, match=r"^the weights of Linear are elsewhere until it runs"):
        on(backbone, adapter)
