"""DreamVideo's adapters against its equations, written out in plain torch."""

import pytest
import torch
from checkpoints import blocks
from checkpoints.bare import KINDS, ask, build
from torch import Tensor

from jtcore import JtError
from jtcore.adapter import switched_on
from jtcore.checkpointing import checkpoint_gradients
from jtcore.types import Reference
from jtplugins.adapters.bottleneck import ResidualBottleneck

SPATIAL = "mid_block.attentions.0.transformer_blocks.0"
TEMPORAL = "mid_block.temp_attentions.0.transformer_blocks.0"
every_kind = pytest.mark.parametrize("kind", KINDS)


def trained(spec: ResidualBottleneck, backbone, seed: int = 3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapter = spec.attach(backbone, {})
        for weight in adapter.parameters():
            weight.data.normal_(std=0.2)
    return adapter


def draw(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(width: int, strengths: tuple[float, float] = (1.0, 1.0), seed: int = 8) -> Reference:
    return Reference(draw(2, width, seed=seed), torch.tensor(strengths))


def put(backbone, asked, adapter, scale=1.0, shown: Reference | None = None) -> Tensor:
    with torch.no_grad(), switched_on({adapter: scale}, 2, reference=shown):
        return asked.put(backbone)


# against the equations


@pytest.mark.parametrize("path", [SPATIAL, TEMPORAL])
def test_a_block_of_the_unet_has_its_bottlenecks_on_the_bare_stream(path):
    backbone = build("unet")
    adapter = trained(ResidualBottleneck("attention", reference_width=6), backbone)
    block, shown = backbone.denoiser.get_submodule(path), reference(6)
    x, text = draw(2, 7, 16), None if path == TEMPORAL else draw(2, 5, 16)

    def onto(name: str, x: Tensor) -> Tensor | float:
        tensors = blocks.of(adapter, f"{path}.{name}")
        return 1.5 * blocks.bottleneck(tensors, x, shown.embedding) if tensors else 0.0

    with switched_on({adapter: 1.5}, 2, reference=shown):
        found = block(x, encoder_hidden_states=text)
    torch.testing.assert_close(found, blocks.unet(block, x, text, onto=onto), rtol=0, atol=1e-6)


@pytest.mark.parametrize("targets", ["text_cross", "visual", ("text_cross", "feed_forward")])
def test_a_block_of_wan_has_its_bottlenecks_outside_the_gates(targets):
    backbone = build("wan")
    adapter = trained(ResidualBottleneck(targets, width=5), backbone)
    block = backbone.denoiser.blocks[2]
    latents = ask("wan").latents
    rotary = backbone.denoiser.rope(latents)
    x, text, time = draw(2, 2 * 2 * 3, 24), draw(2, 5, 24, seed=6), draw(2, 6, 24, seed=7)

    def onto(name: str, x: Tensor) -> Tensor | float:
        tensors = blocks.of(adapter, f"blocks.2.{name}")
        return blocks.bottleneck(tensors, x) if tensors else 0.0

    with switched_on({adapter: 1.0}, 2):
        found = block(x, text, time, rotary)
    expected = blocks.wan(block, x, text, time, rotary, onto=onto)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_a_block_of_cogvideox_has_its_bottlenecks_on_the_videos_tokens_alone():
    backbone, path = build("cogvideox"), "transformer_blocks.1"
    adapter = trained(ResidualBottleneck("visual"), backbone)
    block = backbone.denoiser.get_submodule(path)
    x, text, time = draw(2, 6, 32), draw(2, 5, 32, seed=6), draw(2, 8, seed=7)

    def onto(name: str, x: Tensor) -> Tensor:
        return blocks.bottleneck(blocks.of(adapter, f"{path}.{name}"), x)

    with switched_on({adapter: 1.0}, 2):
        found = block(hidden_states=x, encoder_hidden_states=text, temb=time)
    expected = blocks.cogvideox(block, x, text, time, None, onto=onto)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_text_tokens_have_theirs_where_that_is_asked():
    backbone, path = build("cogvideox"), "transformer_blocks.3"
    adapter = trained(ResidualBottleneck("feed_forward", text=True), backbone)
    block = backbone.denoiser.get_submodule(path)
    x, text, time = draw(2, 6, 32), draw(2, 5, 32, seed=6), draw(2, 8, seed=7)
    middles = []
    block.norm2.register_forward_hook(lambda norm, inputs, output: middles.append(inputs[:2]))
    bare = block(hidden_states=x, encoder_hidden_states=text, temb=time)

    with switched_on({adapter: 1.0}, 2):
        found = block(hidden_states=x, encoder_hidden_states=text, temb=time)
    tensors = blocks.of(adapter, f"{path}.ff")
    for stream, before, middle in zip(found, bare, middles[0], strict=True):
        torch.testing.assert_close(stream - before, blocks.bottleneck(tensors, middle))


def test_in_series_a_bottleneck_reads_what_the_module_has_added():
    backbone = build("unet")
    spec = ResidualBottleneck(("text_cross", "spatial_ff"), position="serial")
    adapter, block = trained(spec, backbone), backbone.denoiser.get_submodule(SPATIAL)
    x, text = draw(2, 7, 16), draw(2, 5, 16, seed=6)

    def after(name: str, x: Tensor) -> Tensor:
        return x + blocks.bottleneck(blocks.of(adapter, f"{SPATIAL}.{name}"), x)

    with switched_on({adapter: 1.0}, 2):
        found = block(x, encoder_hidden_states=text)
    x = x + block.attn1(block.norm1(x))
    x = after("attn2", x + block.attn2(block.norm2(x), encoder_hidden_states=text))
    x = after("ff", x + block.ff(block.norm3(x)))
    torch.testing.assert_close(found, x, rtol=0, atol=1e-6)


# what the method promises


@every_kind
def test_an_untrained_adapter_changes_no_bit(kind):
    backbone, asked = build(kind), ask(kind)
    bare = asked.put(backbone)
    for spec in (
        ResidualBottleneck("text_cross"),
        ResidualBottleneck("visual", reference_width=6),
        ResidualBottleneck("visual", position="serial"),
    ):
        found = put(backbone, asked, spec.attach(backbone, {}), shown=reference(6))
        assert torch.equal(found, bare)


@every_kind
def test_gradients_are_exact_under_checkpointing(kind):
    plain, again = (_gradients(kind, checkpoint) for checkpoint in (False, True))
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert all(grad.abs().max() > 0 for grad in plain.values())


def _gradients(kind: str, checkpoint: bool) -> dict[str, Tensor]:
    backbone, asked = build(kind), ask(kind)
    if checkpoint:
        checkpoint_gradients(backbone)
    adapter = trained(ResidualBottleneck("visual", reference_width=6), backbone)
    with switched_on({adapter: 1.0}, 2, reference=reference(6)):
        asked.put(backbone).square().mean().backward()
    return {name: weight.grad for name, weight in adapter.named_parameters()}


def test_gradients_are_those_of_the_equation():
    backbone, path = build("wan"), "blocks.1"
    adapter = trained(ResidualBottleneck("visual", width=5), backbone)
    block = backbone.denoiser.get_submodule(path)
    rotary = backbone.denoiser.rope(ask("wan").latents)
    x, text, time = draw(2, 12, 24), draw(2, 5, 24, seed=6), draw(2, 6, 24, seed=7)
    weights = [w for name, w in adapter.named_parameters() if name.startswith(f"{path}.")]

    def onto(name: str, x: Tensor) -> Tensor | float:
        tensors = blocks.of(adapter, f"{path}.{name}")
        return blocks.bottleneck(tensors, x) if tensors else 0.0

    with switched_on({adapter: 1.0}, 2):
        found = torch.autograd.grad(block(x, text, time, rotary).square().mean(), weights)
    loss = blocks.wan(block, x, text, time, rotary, onto=onto).square().mean()
    for mine, theirs in zip(found, torch.autograd.grad(loss, weights), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-8)


@every_kind
def test_at_strength_0_neither_the_picture_nor_the_bias_of_its_projection_acts(kind):
    backbone, asked = build(kind), ask(kind)
    adapter = trained(ResidualBottleneck("visual", reference_width=6), backbone)
    without = put(backbone, asked, adapter)
    shown = put(backbone, asked, adapter, shown=reference(6, (0.0, 1.0)))
    other = put(backbone, asked, adapter, shown=reference(6, (0.0, 1.0), seed=9))
    assert torch.equal(shown[0], without[0]) and torch.equal(other[0], without[0])
    assert (shown[1] - without[1]).abs().max() > 1e-3
    assert (shown[1] - other[1]).abs().max() > 1e-3


def test_an_embedding_of_zeros_leaves_the_bias_of_its_projection():
    backbone, asked = build("unet"), ask("unet")
    adapter = trained(ResidualBottleneck("visual", reference_width=6), backbone)
    zeros = Reference(torch.zeros(2, 6), torch.ones(2))
    found, without = (put(backbone, asked, adapter, shown=one) for one in (zeros, None))
    assert (found - without).abs().max() > 1e-3
    for name, weight in adapter.named_parameters():
        if name.endswith("condition.bias"):
            weight.data.zero_()
    assert torch.equal(put(backbone, asked, adapter, shown=zeros), without)


@every_kind
def test_each_sample_has_its_own_scale(kind):
    backbone, asked = build(kind), ask(kind)
    adapter = trained(ResidualBottleneck("visual"), backbone)
    both = put(backbone, asked, adapter, scale=torch.tensor([0.0, 0.7]).view(2, 1, 1))
    bare, scaled = asked.put(backbone), put(backbone, asked, adapter, scale=0.7)
    torch.testing.assert_close(both[0], bare[0])
    torch.testing.assert_close(both[1], scaled[1])


def test_the_merged_model_is_each_alone_where_the_other_is_off():
    backbone, asked = build("unet"), ask("unet")
    specs = ResidualBottleneck("text_cross"), ResidualBottleneck("temporal")
    identity, motion = (trained(spec, backbone) for spec in specs)
    assert identity.state_dict().keys().isdisjoint(motion.state_dict())
    answers = []
    for one, other, spec in ((identity, motion, specs[0]), (motion, identity, specs[1])):
        alone = build("unet")
        expected = put(alone, asked, trained(spec, alone))
        assert torch.equal(put(backbone, asked, one), expected)
        with torch.no_grad(), switched_on({one: 1.0, other: 0.0}, 2):
            torch.testing.assert_close(asked.put(backbone), expected)
        answers.append(expected)
    assert (answers[0] - answers[1]).abs().max() > 1e-3


# which sites


def test_roles_are_those_of_the_paper():
    backbone = build("unet")
    spatial = list(backbone.sites("text_cross"))
    assert len(spatial) == 4 and all(".attentions." in n and n.endswith("attn2") for n in spatial)
    temporal = [name.rpartition(".")[::2] for name in backbone.sites("temporal")]
    assert {name for _, name in temporal} == {"attn1", "attn2", "ff"}
    assert len({block for block, _ in temporal}) == 5
    assert "transformer_in.transformer_blocks.0" in {block for block, _ in temporal}
    assert {n.split(".")[-1] for n in build("wan").sites("text_cross")} == {"attn2"}
    assert {n.split(".")[-1] for n in build("cogvideox").sites("text_cross")} == {"attn1"}


@every_kind
def test_the_bottleneck_is_half_as_wide_as_the_stream(kind):
    backbone = build(kind)
    adapter = ResidualBottleneck("visual").attach(backbone, {})
    for name, site in backbone.sites("visual").items():
        down = blocks.of(adapter, name)["down.weight"]
        assert down.shape == (site.width // 2, site.width)


def test_targets_without_a_site_are_told():
    with pytest.raises(JtError, match=r"^'temporal_conv' has no attention or feed-forward of a"):
        ResidualBottleneck("temporal_conv").attach(build("unet"), {})
