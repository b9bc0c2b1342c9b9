"""LoRA and GLoRA against their formulas, written out in plain torch."""

import re

import pytest
import torch
from attrs import frozen
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn

from jtcore import JtError
from jtcore.adapter import Adapter, switched_on
from jtcore.targets import match_targets
from jtplugins.adapters.glora import GLoRA
from jtplugins.adapters.lora import LoRA
from jtplugins.backbones._cogvideox import CogVideoXBackbone

BATCH, FOLDED, TOKENS, WIDTH, OUT, RANK = 2, 3, 5, 8, 6, 4
layouts = pytest.mark.parametrize("folded", [1, FOLDED])


@frozen(eq=False)
class OneLayer:
    """A backbone of one linear, which may fold frames into its first axis"""

    denoiser: nn.Module

    def targets(self, query: str) -> dict[str, nn.Module]:
        return match_targets(self.denoiser, {"all": ("*layer",)}, query)

    def __call__(
        self, adapter: Adapter, x: Tensor, scale: float | Tensor = 1.0
    ) -> Tensor:  # (N, T, WIDTH) -> (N, T, OUT)
        with switched_on({adapter: scale}, BATCH):
            return self.denoiser.layer(x)


@pytest.fixture
def backbone() -> OneLayer:
    torch.manual_seed(0)
    denoiser = nn.Module()
    denoiser.layer = nn.Linear(WIDTH, OUT).requires_grad_(False)
    return OneLayer(denoiser)


def trained(spec, backbone: OneLayer) -> tuple[Adapter, dict[str, Tensor]]:
    """The adapter in eval mode with weights of its own, and these weights."""
    adapter = spec.attach(backbone, {}).eval()
    for weight in adapter.parameters():
        nn.init.normal_(weight)
    return adapter, {name.split(".")[1]: weight for name, weight in adapter.named_parameters()}


def draw_input(folded: int = 1) -> Tensor:  # (N, T, WIDTH)
    return torch.randn(BATCH * folded, TOKENS, WIDTH)


def gates(x: Tensor, weight: Tensor) -> Tensor:  # (N, T, WIDTH), (1, WIDTH) -> (N, T, 1)
    return 1 / (1 + torch.exp(-(x @ weight.T)))


@pytest.mark.parametrize(("alpha", "factor"), [(None, 1.0), (RANK / 2, 0.5)])
def test_lora_is_its_formula(backbone, alpha, factor):
    adapter, w = trained(LoRA("all", RANK, alpha), backbone)
    x, base = draw_input(), backbone.denoiser.layer
    expected = x @ base.weight.T + base.bias + 0.7 * factor * (x @ w["down"].T @ w["up"].T)
    torch.testing.assert_close(backbone(adapter, x, 0.7), expected)


@pytest.mark.parametrize("side", ["input", "output"])
def test_dropout_falls_where_it_is_asked_to(backbone, side):
    adapter, w = trained(LoRA("all", RANK, dropout=0.5, dropout_on=side), backbone)
    x = draw_input()
    torch.manual_seed(1)
    found = backbone(adapter.train(), x) - backbone.denoiser.layer(x)
    torch.manual_seed(1)
    if side == "input":
        expected = nn.functional.dropout(x, 0.5) @ w["down"].T @ w["up"].T
    else:
        expected = nn.functional.dropout(x @ w["down"].T @ w["up"].T, 0.5)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("init", "std"), [("normal", 1 / 50), ("kaiming", 1 / (3 * 400) ** 0.5)])
def test_down_starts_as_announced_and_up_at_zero(init, std):
    torch.manual_seed(0)
    denoiser = nn.Module()
    denoiser.layer = nn.Linear(400, 70)
    down, up = LoRA("all", 50, init=init).attach(OneLayer(denoiser), {}).parameters()
    assert down.std().item() == pytest.approx(std, rel=0.02)
    assert down.mean().abs() < 0.02 * std
    assert down.abs().max() <= 1 / 20 or init == "normal"
    assert not up.any()


@layouts
def test_the_gate_is_the_mean_over_one_samples_tokens(backbone, folded):
    adapter, w = trained(GLoRA("all", RANK), backbone)
    x = draw_input(folded)
    found = backbone(adapter, x) - backbone.denoiser.layer(x)
    for sample in range(BATCH):
        own = slice(sample * folded, (sample + 1) * folded)
        expected = gates(x[own], w["gate"]).mean() * (x[own] @ w["down"].T @ w["up"].T)
        torch.testing.assert_close(found[own], expected, atol=1e-5, rtol=1e-4)


@layouts
def test_the_batch_gate_is_the_mean_over_all_tokens(backbone, folded):
    adapter, w = trained(GLoRA("all", RANK, gate_over="batch"), backbone)
    x = draw_input(folded)
    expected = gates(x, w["gate"]).mean(0).mean(0) * (x @ w["down"].T @ w["up"].T)
    found = backbone(adapter, x) - backbone.denoiser.layer(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("over", "leaks"), [("sample", False), ("batch", True)])
def test_only_the_batch_gate_lets_a_sample_see_its_neighbour(backbone, over, leaks):
    adapter, _ = trained(GLoRA("all", RANK, gate_over=over), backbone)
    x = draw_input(FOLDED)
    neighbour = torch.cat([x[:FOLDED], draw_input(FOLDED)[FOLDED:]])
    first, again = backbone(adapter, x)[:FOLDED], backbone(adapter, neighbour)[:FOLDED]
    assert torch.equal(first, again) is not leaks


@layouts
@pytest.mark.parametrize("spec", [LoRA("all", RANK), GLoRA("all", RANK)])
def test_each_sample_has_its_own_scale_with_its_own_gradient(backbone, spec, folded):
    adapter, _ = trained(spec, backbone)
    x, weight = draw_input(folded), torch.randn(BATCH * folded, TOKENS, OUT)
    scale = torch.tensor([0.5, 2.0]).view(BATCH, 1, 1).requires_grad_()
    (backbone(adapter, x, scale) * weight).sum().backward()
    unit = (backbone(adapter, x) - backbone.denoiser.layer(x)) * weight  # linear in the scale
    torch.testing.assert_close(scale.grad.flatten(), unit.reshape(BATCH, -1).sum(1))
    one_scale = backbone(adapter, x, 0.5)[:folded]
    torch.testing.assert_close(backbone(adapter, x, scale)[:folded], one_scale)


@layouts
def test_every_gradient_of_glora_is_that_of_its_formula(backbone, folded):
    adapter, w = trained(GLoRA("all", RANK), backbone)
    x, base = draw_input(folded), backbone.denoiser.layer
    weights = list(w.values())
    found = torch.autograd.grad(backbone(adapter, x).square().sum(), weights)
    gate = gates(x, w["gate"]).unflatten(0, (BATCH, folded)).mean((1, 2, 3), keepdim=True)
    update = (x @ w["down"].T @ w["up"].T).unflatten(0, (BATCH, folded))
    expected = torch.autograd.grad(
        (base(x) + (gate * update).flatten(0, 1)).square().sum(), weights
    )
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_the_gates_of_the_last_pass_are_reported(backbone):
    adapter, w = trained(GLoRA("all", RANK), backbone)
    assert adapter.train().scalars() == {}
    x = draw_input()
    backbone(adapter, x)
    expected = gates(x, w["gate"]).mean()
    assert adapter.scalars().keys() == {"gate", "gate_min", "gate_max"}
    for value in adapter.scalars().values():
        torch.testing.assert_close(value, expected.detach())
        assert not value.requires_grad


@pytest.mark.parametrize("kind", [LoRA, GLoRA])
def test_how_large_updates_are_is_told_outside_training(backbone, kind):
    adapter, _ = trained(kind("all", RANK, dropout=0.0), backbone)
    x = draw_input()
    with_update, without = backbone(adapter, x), backbone.denoiser.layer(x)
    expected = (with_update - without).norm() / without.norm()
    torch.testing.assert_close(adapter.scalars()["relative_update"], expected.detach())
    assert "relative_update" not in adapter.train().scalars()


def test_a_target_that_is_not_linear_is_named(backbone):
    backbone.denoiser.norm_layer = nn.LayerNorm(WIDTH)
    backbone.denoiser.conv_layer = nn.Conv2d(3, 3, 1)
    message = (
        "low-rank adapters need linear layers, but the targets include 'norm_layer' (LayerNorm)"
        " and 1 more; narrow `targets` to linear layers"
    )
    with pytest.raises(JtError, match=f"^{re.escape(message)}$"):
        LoRA("all").attach(backbone, {})


@pytest.mark.parametrize(
    ("heads", "layers", "rotary", "parameters"),
    [(30, 30, False, 133_228_800), (48, 42, True, 298_432_512)],
    ids=["2b", "5b"],
)
def test_glora_of_rank_128_has_as_many_parameters_as_the_released(
    heads, layers, rotary, parameters
):
    with torch.device("meta"):
        denoiser = CogVideoXTransformer3DModel(
            num_attention_heads=heads, num_layers=layers, use_rotary_positional_embeddings=rotary
        )
    adapter = GLoRA("visual", rank=128).attach(CogVideoXBackbone(denoiser, None), {})
    assert sum(weight.numel() for weight in adapter.parameters()) == parameters


def test_a_rank_that_no_layer_can_have_is_refused(backbone):
    with pytest.raises(JtError) as error:
        LoRA("all", rank=7).attach(backbone, {})
    assert str(error.value) == (
        "rank 7 is more than the layer of 8 to 6 features can have; take at most 6"
    )


def test_what_comes_before_the_first_adapted_layer_keeps_nothing_for_backward():
    network = CogVideoXTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=16,
        in_channels=2,
        out_channels=2,
        time_embed_dim=4,
        text_embed_dim=8,
        num_layers=2,
        sample_width=4,
        sample_height=4,
        max_text_seq_length=3,
        use_rotary_positional_embeddings=True,
    ).requires_grad_(False)
    backbone = CogVideoXBackbone(network, None)
    adapter = GLoRA("transformer_blocks.1.*to_q", rank=2).attach(backbone, {})
    kept, before = [], []
    network.transformer_blocks[1].register_forward_pre_hook(lambda *_: before.extend(kept))
    with (
        switched_on({adapter: 1.0}, 1),
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t),
    ):
        latents, text = torch.randn(1, 2, 1, 4, 4), torch.randn(1, 3, 8)
        found = backbone.predict(latents, torch.tensor([5]), text)
    assert not before
    assert kept
    found.sum().backward()
    assert all(weight.grad is not None for weight in adapter.parameters())
    assert not any(weight.requires_grad for weight in network.parameters())
