"""Maps of attention to words, and biases of it, against attention that is computed step by step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attrs import frozen
from checkpoints import cogvideox
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from jtcore import JtError
from jtcore.adapter import switched_on
from jtcore.attention import AttentionTo, Capture, biased
from jtcore.checkpointing import checkpoint_gradients
from jtcore.types import BackboneSpec
from jtplugins.adapters.lora import LoRA
from jtplugins.backbones.cogvideox import CogVideoX
from jtplugins.backbones.pocket import Pocket
from jtplugins.backbones.wan import Wan
from jtplugins.backbones.zeroscope import ZeroScope

CPU = torch.device("cpu")


@frozen
class Case:
    """A small backbone, a size of latents, and which linears make queries and keys"""

    build: Callable[[Path], BackboneSpec]
    shape: tuple[int, int, int, int]  # (C, F, H, W)
    text: tuple[int, int]  # (L, D)


CASES = {
    "pocket": Case(lambda folder: Pocket("random"), (48, 3, 4, 4), (20, 64)),
    "cogvideox": Case(
        lambda folder: CogVideoX(str(cogvideox.build(folder, "5b"))), (4, 3, 4, 6), (48, 32)
    ),
    "cogvideox_pairs": Case(
        lambda folder: CogVideoX(str(cogvideox.build(folder, "1.5"))), (4, 3, 4, 6), (48, 32)
    ),
    "zeroscope": Case(
        lambda folder: ZeroScope(str(build_zeroscope(folder))), (4, 3, 4, 6), (7, 16)
    ),
    "wan": Case(lambda folder: Wan(str(build_wan(folder))), (16, 3, 4, 6), (512, 32)),
}


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def spec(case, tmp_path_factory) -> BackboneSpec:
    return case.build(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def backbone(spec):
    return spec.load(CPU, torch.float32)


@pytest.fixture
def question(case) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (2, C, F, H, W), times and text (2, L, D)."""
    rng = torch.Generator().manual_seed(1)
    latents = torch.randn(2, *case.shape, generator=rng)
    return latents, torch.tensor([100, 900]), torch.randn(2, *case.text, generator=rng)


@pytest.fixture
def columns(case) -> Tensor:
    """Two tokens of the first sample's text, one of the other's: (2, L)."""
    weights = torch.zeros(2, case.text[0])
    weights[0, [1, 3]], weights[1, 2] = 0.5, 1.0
    return weights


def capture(backbone, columns: Tensor, shape, **asked) -> Capture:
    sites = AttentionTo("wug", **asked).choose(backbone.text_attentions())
    return Capture(sites, columns[..., None], shape[-2:])


def only(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the one phrase, each (B, F, H, W)."""
    return {name: each[0] for name, each in maps.items()}


def explicit(backbone, question) -> dict[str, tuple[Tensor, Tensor]]:
    """Probabilities (N, heads, queries, keys) of every site by softmax, and its answer before the
    last linear, out of what its linears, norms and positions are given and answer."""
    found = {}
    with torch.no_grad():
        for name, site in backbone.text_attentions().items():
            seen: dict[str, Tensor] = {}
            handles = [
                getattr(site.module, part).register_forward_hook(
                    lambda m, i, o, part=part, seen=seen: seen.update({part: o.clone()})
                )
                for part in ("to_q", "to_k", "to_v", "norm_q", "norm_k")
                if getattr(site.module, part, None) is not None
            ]
            handles.append(
                site.module.register_forward_pre_hook(
                    lambda m, i, k, seen=seen: seen.update(rotary=k.get("image_rotary_emb")),
                    with_kwargs=True,
                )
            )
            backbone.predict(*question)
            for handle in handles:
                handle.remove()
            found[name] = softmaxed(site, seen, question[2].shape[1])
    return found


def softmaxed(site, seen: dict[str, Tensor], text: int) -> Tensor:
    heads, parts = site.module.heads, []
    for part in "qk":
        x = seen.get(f"norm_{part}", seen[f"to_{part}"])
        if x.ndim == 3:
            x = x.unflatten(2, (heads, -1)).transpose(1, 2)
        if seen.get("rotary") is not None:
            x = torch.cat([x[:, :, :text], apply_rotary_emb(x[:, :, text:], seen["rotary"])], 2)
        parts.append(x)
    query, key = parts
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)


def expected_maps(backbone, question, columns: Tensor) -> dict[str, Tensor]:
    maps = {}
    for name, probabilities in explicit(backbone, question).items():
        site, (_, _, frames, *grid) = backbone.text_attentions()[name], question[0].shape
        text = columns.shape[1]
        if site.joint:
            probabilities = probabilities[:, :, text:, :text]
        folded = len(probabilities) // 2
        weighted = probabilities @ columns.repeat_interleave(folded, 0)[:, None, :, None]
        maps[name] = weighted[..., 0].mean(1).view(2, *site.grid(frames, *grid))
    return maps


def test_maps_are_those_of_attention_computed_step_by_step(backbone, question, columns):
    seen = capture(backbone, columns, question[0].shape)
    with torch.no_grad():
        plain = backbone.predict(*question)
        with seen.watching(), seen.recording() as maps:
            answer = backbone.predict(*question)
    assert torch.equal(answer, plain)
    expected = expected_maps(backbone, question, columns)
    assert maps.keys() == expected.keys() and len(maps) >= 2
    for name, each in only(maps).items():
        torch.testing.assert_close(each, expected[name], atol=1e-6, rtol=1e-5)


def test_several_phrases_are_read_at_once(backbone, question, columns):
    other = columns.roll(1, 1)
    sites = AttentionTo("wug").choose(backbone.text_attentions())
    seen = Capture(sites, torch.stack([columns, other], 2), question[0].shape[-2:])
    with torch.no_grad(), seen.watching(), seen.recording() as maps:
        backbone.predict(*question)
    expected = expected_maps(backbone, question, other)
    for name, each in maps.items():
        torch.testing.assert_close(each[1], expected[name], atol=1e-6, rtol=1e-5)


def trained_lora(backbone, targets: str):
    adapter = LoRA(targets, rank=2).attach(backbone, {})
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=rng))
    return adapter


def test_maps_hold_what_adapters_do_to_queries_and_keys(backbone, question, columns):
    adapter = trained_lora(backbone, "text_cross").eval()
    seen = capture(backbone, columns, question[0].shape)
    with torch.no_grad(), seen.watching():
        with seen.recording() as off:
            backbone.predict(*question)
        with switched_on({adapter: 1.0}, 2), seen.recording() as on:
            backbone.predict(*question)
    with switched_on({adapter: 1.0}, 2):
        expected = expected_maps(backbone, question, columns)
    first = next(iter(on))
    assert (on[first] - off[first]).abs().max() > 1e-3
    for name, each in only(on).items():
        torch.testing.assert_close(each, expected[name], atol=1e-6, rtol=1e-5)


def gradients(backbone, question, columns, adapter, wanted: Callable) -> list[Tensor]:
    """Of the maps and the answer, with dropout drawn from one seed."""
    adapter.zero_grad()
    torch.manual_seed(5)
    seen = capture(backbone, columns, question[0].shape)
    with switched_on({adapter: 1.0}, 2), seen.watching():
        with seen.recording() as maps:
            answer = backbone.predict(*question)
        wanted(answer, maps).backward()
    return [weight.grad.clone() for weight in adapter.parameters() if weight.grad is not None]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_gradients_are_exact_under_checkpointing(backbone, question, columns, share):
    def wanted(answer: Tensor, maps: dict[str, Tensor]) -> Tensor:
        weighted = sum((each - 0.3).square().mean() * n for n, each in enumerate(maps.values(), 1))
        return weighted + share * answer.square().mean()

    adapter = trained_lora(backbone, "text_cross").train()
    plain = gradients(backbone, question, columns, adapter, wanted)
    checkpoint_gradients(backbone)
    checkpointed = gradients(backbone, question, columns, adapter, wanted)
    assert len(plain) == len(checkpointed) and max(each.abs().max() for each in plain) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))


def test_a_gradient_of_maps_agrees_with_finite_differences(backbone, question, columns):
    adapter = trained_lora(backbone, "text_cross").double().eval()
    nn.Module.to(backbone.denoiser, torch.float64)
    latents, times, text = question
    question = latents.double(), times, text.double()
    (_name, weight) = next(iter(adapter.named_parameters()))

    def value() -> Tensor:
        seen = capture(backbone, columns, latents.shape)
        with switched_on({adapter: 1.0}, 2), seen.watching(), seen.recording() as maps:
            backbone.predict(*question)
        return torch.stack([each.square().mean() for each in maps.values()]).sum()

    value().backward()
    direction, step = weight.grad / weight.grad.norm(), 1e-2
    with torch.no_grad():
        values = []
        for sign in (1, -2):
            weight.add_(sign * step * direction)
            values.append(value().double())
    slope = (values[0] - values[1]) / (2 * step)
    torch.testing.assert_close(slope, weight.grad.norm(), rtol=2e-3, atol=0)


def test_nothing_is_left_behind(backbone, question, columns):
    seen = capture(backbone, columns, question[0].shape)
    with torch.no_grad(), seen.watching(), seen.recording():
        backbone.predict(*question)
    for site in backbone.text_attentions().values():
        assert not site.module._forward_hooks and not site.module._forward_pre_hooks


def test_a_bias_is_added_before_the_softmax_to_the_text_alone(backbone, question):
    rng = torch.Generator().manual_seed(2)
    latents, _, text = question
    plain = explicit(backbone, question)
    name, site = next(iter(backbone.text_attentions().items()))
    tokens = torch.tensor(site.grid(*latents.shape[2:])).prod()
    bias = torch.randn(2, tokens, text.shape[1], generator=rng)
    columns = torch.zeros(2, text.shape[1])
    columns[:, 4] = 1
    seen = capture(backbone, columns, latents.shape, sites=name)
    added = biased({name: site}, lambda site: bias)
    with torch.no_grad(), added, seen.watching(), seen.recording() as maps:
        answer = backbone.predict(*question)
    expected = plain[name].log()
    each = bias.reshape(len(expected), 1, -1, text.shape[1])
    expected[:, :, -each.shape[2] :, : text.shape[1]] += each
    expected = expected.softmax(-1)[:, :, -each.shape[2] :, 4].mean(1)
    torch.testing.assert_close(maps[name][0], expected.view_as(maps[name][0]), atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        assert (answer - backbone.predict(*question)).abs().max() > 1e-6


def test_a_bias_of_none_changes_nothing(backbone, question):
    with torch.no_grad():
        plain = backbone.predict(*question)
        with biased(backbone.text_attentions(), lambda site: None):
            assert torch.equal(backbone.predict(*question), plain)


def test_a_denoiser_in_bfloat16_has_maps_in_float32(backbone, question, columns):
    seen = capture(backbone, columns, question[0].shape)
    with torch.no_grad(), seen.watching(), seen.recording() as exact:
        backbone.predict(*question)
    nn.Module.to(backbone.denoiser, torch.bfloat16)
    bfloat16 = torch.autocast("cpu", torch.bfloat16)
    with torch.no_grad(), bfloat16, seen.watching(), seen.recording() as rounded:
        backbone.predict(*question)
    for name, each in rounded.items():
        assert each.dtype == torch.float32
        assert (each - exact[name]).norm() < 0.05 * exact[name].norm()


def test_zeroscope_attends_at_five_layers_where_frames_are_ten_by_eighteen():
    backbone = ZeroScope("random").load(torch.device("meta"), torch.float32)
    found = AttentionTo("wug", cells=4).choose(backbone.text_attentions())
    assert list(found) == [
        *(f"down_blocks.2.attentions.{i}.transformer_blocks.0.attn2" for i in range(2)),
        *(f"up_blocks.1.attentions.{i}.transformer_blocks.0.attn2" for i in range(3)),
    ]
    assert {site.grid(24, 320 // 8, 576 // 8) for site in found.values()} == {(24, 10, 18)}
    assert len(backbone.text_attentions()) == 16


def test_sites_that_are_not_there_are_told(backbone):
    with pytest.raises(JtError, match=r"^no attention to the text is called 'nowhere\*' with"):
        AttentionTo("wug", sites="nowhere*").choose(backbone.text_attentions())
