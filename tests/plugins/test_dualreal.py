"""DualReal's adapters and controller against its equations, written out in plain torch."""

import pytest
import torch
from checkpoints import blocks
from checkpoints.bare import KINDS, LAYERS, ask, build
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, relu, silu

from jtcore import JtError
from jtcore.adapter import Adapter, switched_on
from jtcore.checkpointing import checkpoint_gradients
from jtcore.types import Reference
from jtplugins.adapters.dualreal import DualReal
from jtplugins.adapters.lora import LoRA
from jtplugins.adapters.stage_blender import StageBlender

GROUPS = {"unet": 3, "cogvideox": 2, "wan": 2}
every_kind = pytest.mark.parametrize("kind", KINDS)
Three = tuple[Adapter, Adapter, Adapter]  # identity, motion, controller


def attach(backbone, groups: int, std: float = 0.0, **options) -> Three:
    """The three; with weights of deviation `std`, as if they had been trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        identity = DualReal(width=4, **options).attach(backbone, {})
        motion = DualReal(width=4, reference_width=6, **options).attach(backbone, {})
        others = {"identity": identity, "motion": motion}
        controller = StageBlender(groups=groups, width=16).attach(backbone, others)
        if std:
            for weight in (w for each in (*others.values(), controller) for w in each.parameters()):
                weight.data.normal_(std=std)
    return identity, motion, controller


def draw(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(seed: int = 8) -> Reference:
    return Reference(draw(2, 6, seed=seed), torch.ones(2))


def on(*adapters: Adapter, shown: Reference | None = None):
    return switched_on(dict.fromkeys(adapters, 1.0), 2, reference=shown)


def put(backbone, asked, *adapters: Adapter, shown: Reference | None = None) -> Tensor:
    with torch.no_grad(), on(*adapters, shown=shown):
        return asked.put(backbone)


# against the equations


def controlled(controller: Adapter, tokens: Tensor, time: Tensor) -> Tensor:  # (B, n)
    """The identity adapter's weight in each group; tokens (B, L, D), time embedding (B, T)."""
    w = dict(controller.named_parameters())

    def layer(name: str, x: Tensor) -> Tensor:
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    shift, scale, gate = layer("modulation", silu(time)).chunk(3, dim=1)
    c = layer("tokens", tokens.max(dim=1)[0])
    f = layer_norm(c, c.shape[1:], w["norm.weight"], w["norm.bias"], 1e-5) * (1 + scale) + shift
    f = layer("narrow", gelu(layer("widen", f), approximate="tanh")) + gate * c
    return 0.2 * torch.sigmoid(layer("head", relu(layer("hidden", relu(f)))))


def skipped(adapter: Adapter, place: str, x: Tensor, y: Tensor | None = None) -> Tensor:
    return blocks.bottleneck(blocks.of(adapter, place), x, y) + x


def forked(backbone, asked, three: Three, y: Tensor | None) -> Tensor:
    """What DualReal's own transformer hands to its last norm: video tokens (B, N, D)."""
    identity, motion, controller = three
    network, words = backbone.denoiser, asked.text.shape[1]
    time = network.time_embedding(network.time_proj(asked.times))
    tokens = network.patch_embed(asked.text, asked.latents.transpose(1, 2))
    alpha = controlled(controller, tokens, time)
    text, x = tokens[:, :words], tokens[:, words:]
    rotary = backbone._rotary(asked.latents)
    per_group = len(network.transformer_blocks) // alpha.shape[1]
    for index, block in enumerate(network.transformer_blocks):
        of_identity = alpha[:, index // per_group].view(-1, 1, 1)

        def inside(name: str, h: Tensor, index=index, weight=of_identity) -> Tensor:
            place = f"transformer_blocks.{index}.{name}"
            of_motion = (0.2 - weight) * skipped(motion, place, h, y)
            return weight * skipped(identity, place, h) + of_motion

        x, text = blocks.cogvideox(block, x, text, time, rotary, inside=inside)
    return x


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("shown", [None, reference()], ids=["without picture", "with picture"])
def test_a_stock_cogvideox_is_dualreals_own_with_its_gradients(checkpoint, shown):
    backbone, asked = build("cogvideox"), ask("cogvideox")
    three = attach(backbone, groups=2, std=0.2)
    weights = [weight for each in three for weight in each.parameters()]
    expected = forked(backbone, asked, three, shown and shown.embedding)
    gradients = torch.autograd.grad(expected.square().mean(), weights, allow_unused=True)
    if checkpoint:
        checkpoint_gradients(backbone)
    heard = []
    backbone.denoiser.norm_final.register_forward_pre_hook(lambda _, inputs: heard.append(inputs))
    with on(*three, shown=shown):
        asked.put(backbone)
        found = torch.autograd.grad(heard[0][0].square().mean(), weights, allow_unused=True)

    assert (heard[0][0] - expected).abs().max() < 1e-6 * expected.abs().max()
    unused = sum(each is None for each in gradients)
    assert unused == (0 if shown else 4 * LAYERS)  # the projections of a picture that is not shown
    for mine, theirs in zip(found, gradients, strict=True):
        if theirs is None:
            assert mine is None
            continue
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_without_a_controller_each_has_its_static_weight():
    backbone, path = build("wan"), "blocks.1"
    identity, motion, _ = attach(backbone, groups=2, std=0.2)
    block, rotary = backbone.denoiser.blocks[1], backbone.denoiser.rope(ask("wan").latents)
    x, text, time = draw(2, 12, 24), draw(2, 5, 24, seed=6), draw(2, 6, 24, seed=7)

    def inside(name: str, h: Tensor) -> Tensor | float:
        if name == "attn2":
            return 0.0
        place = f"{path}.{name}"
        return 0.1 * (skipped(identity, place, h) + skipped(motion, place, h))

    with on(identity, motion):
        found = block(x, text, time, rotary)
    expected = blocks.wan(block, x, text, time, rotary, inside=inside)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_on_a_unet_it_acts_on_the_stream_directly():
    backbone, path = build("unet"), "mid_block.attentions.0.transformer_blocks.0"
    identity, _, _ = attach(backbone, groups=3, std=0.2, skip=False, targets="spatial")
    block, x, text = backbone.denoiser.get_submodule(path), draw(2, 7, 16), draw(2, 5, 16, seed=6)

    def inside(name: str, h: Tensor) -> Tensor | float:
        tensors = blocks.of(identity, f"{path}.{name}")
        return 0.1 * blocks.bottleneck(tensors, h) if tensors else 0.0

    with on(identity):
        found = block(x, encoder_hidden_states=text)
    torch.testing.assert_close(found, blocks.unet(block, x, text, inside=inside), rtol=0, atol=1e-6)


def test_the_papers_equations_are_options():
    """GELU behind both projections, a product with what the picture says, from block to block."""
    backbone, path = build("wan"), "blocks.2"
    paper = {"skip": False, "activation": "after", "condition": "multiply", "added": "block"}
    identity, motion, _ = attach(backbone, groups=2, std=0.3, **paper)
    block, rotary = backbone.denoiser.blocks[2], backbone.denoiser.rope(ask("wan").latents)
    x, text, time = draw(2, 12, 24), draw(2, 5, 24, seed=6), draw(2, 6, 24, seed=7)
    shown = reference()
    bare = block(x, text, time, rotary)

    def of_the_paper(adapter: Adapter, f: Tensor) -> Tensor:
        w = blocks.of(adapter, path)
        return gelu(
            linear(linear(f, w["down.weight"], w["down.bias"]), w["up.weight"], w["up.bias"])
        )

    said = linear(
        shown.embedding, *(blocks.of(motion, path)[f"condition.{k}"] for k in ("weight", "bias"))
    )
    expected = bare + 0.1 * of_the_paper(identity, x)
    expected = expected + 0.1 * of_the_paper(motion, x * said[:, None])
    with on(identity, motion, shown=shown):
        found = block(x, text, time, rotary)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_the_papers_order_of_its_equation_8_is_an_option():
    """Time acts on what the network of two layers answers, not on what it reads."""
    backbone, asked = build("cogvideox"), ask("cogvideox")
    others = {name: DualReal(width=4).attach(backbone, {}) for name in ("identity", "motion")}
    blender = StageBlender(groups=2, width=16, modulated="after").attach(backbone, others)
    for weight in blender.parameters():
        weight.data.normal_(std=0.3)
    put(backbone, asked, blender)

    network, w = backbone.denoiser, dict(blender.named_parameters())

    def layer(name: str, x: Tensor) -> Tensor:
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    time = network.time_embedding(network.time_proj(asked.times))
    tokens = network.patch_embed(asked.text, asked.latents.transpose(1, 2))
    beta, alpha, gate = layer("modulation", silu(time)).chunk(3, dim=1)
    q = layer("tokens", tokens.amax(1))
    normed = layer_norm(q, q.shape[1:], w["norm.weight"], w["norm.bias"])
    f = layer("narrow", gelu(layer("widen", normed), approximate="tanh")) * alpha + beta
    expected = 0.2 * layer("head", relu(layer("hidden", relu(f + gate * q)))).sigmoid()
    torch.testing.assert_close(blender.weights, expected)
    assert (blender.weights[0] - blender.weights[1]).abs().max() > 1e-5


# the controller


@every_kind
def test_every_sample_begins_with_half_of_the_budget_in_every_group(kind):
    backbone, asked = build(kind), ask(kind)
    three = attach(backbone, GROUPS[kind])
    static = put(backbone, asked, *three[:2])
    found = put(backbone, asked, *three)
    assert torch.equal(three[2].weights, torch.full((2, GROUPS[kind]), 0.1))
    torch.testing.assert_close(found, static)


def test_another_budget_is_split_into_what_is_left_of_it():
    backbone, asked = build("cogvideox"), ask("cogvideox")
    others = {name: DualReal().attach(backbone, {}) for name in ("identity", "motion")}
    controller = StageBlender(groups=2, width=16, budget=1.0).attach(backbone, others)
    torch.nn.init.constant_(controller.head.bias, 1.0)
    put(backbone, asked, *others.values(), controller)
    first = torch.tensor(1.0).sigmoid()
    torch.testing.assert_close(controller.weights, first.expand(2, 2))
    with switched_on({controller: 1.0, others["motion"]: 1.0}, 2):
        torch.testing.assert_close(others["motion"].weight(0), 1 - first.expand(2))


@every_kind
def test_its_weights_are_of_the_sample_and_the_time_alone(kind):
    backbone, asked = build(kind), ask(kind)
    three = attach(backbone, GROUPS[kind], std=0.3)
    put(backbone, asked, *three)
    first = three[2].weights
    assert (first[0] - first[1]).abs().max() > 1e-4
    put(backbone, ask(kind, times=(100, 300)), *three)
    again = three[2].weights
    torch.testing.assert_close(again[0], first[0])
    assert (again[1] - first[1]).abs().max() > 1e-6


def test_tokens_are_those_of_text_and_video_of_all_frames_and_places():
    for kind, key in (("unet", "latents"), ("wan", "text"), ("wan", "latents")):
        backbone, asked = build(kind), ask(kind)
        three = attach(backbone, GROUPS[kind], std=0.3)
        put(backbone, asked, *three)
        first = three[2].weights
        getattr(asked, key)[1, :, -1] += 9  # the last frame, or the last number of the text
        put(backbone, asked, *three)
        torch.testing.assert_close(three[2].weights[0], first[0])
        assert (three[2].weights[1] - first[1]).abs().max() > 1e-6


@every_kind
def test_gradients_are_exact_under_checkpointing(kind):
    def gradients(checkpoint: bool) -> list[Tensor]:
        backbone, asked = build(kind), ask(kind)
        three = attach(backbone, GROUPS[kind], std=0.3)
        if checkpoint:
            checkpoint_gradients(backbone)
        with on(*three, shown=reference()):
            asked.put(backbone).square().mean().backward()
        return [weight.grad for each in three for weight in each.parameters()]

    pairs = list(zip(gradients(False), gradients(True), strict=True))
    assert all(torch.equal(plain, checkpointed) for plain, checkpointed in pairs)


@pytest.mark.parametrize("weight", [0.1, 0.4])
def test_at_scale_0_it_is_as_if_it_were_off(weight):
    backbone, asked = build("wan"), ask("wan")
    three = attach(backbone, 2, std=0.3, weight=weight)
    at_1, off = put(backbone, asked, *three), put(backbone, asked, *three[:2])

    def at(scale: float | Tensor) -> Tensor:
        scales = dict.fromkeys(three[:2], 1.0) | {three[2]: scale}
        with torch.no_grad(), switched_on(scales, 2):
            return asked.put(backbone)

    mixed = at(torch.tensor([0.0, 1.0]).view(2, 1, 1))
    torch.testing.assert_close(at(0.0), off)
    torch.testing.assert_close(mixed[0], off[0])
    torch.testing.assert_close(mixed[1], at_1[1])
    assert (at_1 - off).abs().max() > 1e-4

    with switched_on({three[0]: 1.0, three[2]: 0.5}, 2):
        between = three[0].weight(0)
    torch.testing.assert_close(between, (three[2].weights[:, 0] + weight) / 2)


def test_with_guidance_it_tells_of_the_prompted_half():
    backbone, asked = build("wan"), ask("wan")
    three = attach(backbone, 2, std=0.3)
    with torch.no_grad(), switched_on(dict.fromkeys(three, 1.0), 2, halves=2):
        asked.put(backbone)
    told = torch.stack(list(three[2].scalars().values()))
    assert torch.equal(told, three[2].weights[1])


def test_it_tells_each_groups_weight_of_the_identity():
    backbone, asked = build("wan"), ask("wan")
    three = attach(backbone, 2, std=0.3)
    assert three[2].scalars() == {}
    put(backbone, asked, *three)
    told = three[2].scalars()
    assert list(told) == ["identity_0", "identity_1"]
    torch.testing.assert_close(torch.stack(list(told.values())), three[2].weights.mean(0))


def test_groups_that_do_not_divide_the_blocks_are_answered_with_those_that_do():
    with pytest.raises(JtError) as caught:
        attach(build("unet"), 7)
    assert str(caught.value) == (
        "groups: 7 does not divide the 9 blocks of the backbone; take one of 1, 3, 9"
    )


def test_adapters_that_it_cannot_weigh_are_told():
    backbone = build("wan")
    identity = DualReal(width=4).attach(backbone, {})
    others = {"identity": identity, "plain": LoRA("visual", rank=2).attach(backbone, {})}
    cases = {
        ("identity", "motion"): "between: no adapter 'motion'; there are identity, plain",
        ("identity", "plain"): (
            "between: the adapter 'plain' takes no weight; expected a 'dualreal'"
        ),
        ("identity", "identity"): "between: expected two adapters, got 'identity' twice",
    }
    for between, told in cases.items():
        with pytest.raises(JtError) as caught:
            StageBlender(between, groups=2).attach(backbone, others)
        assert str(caught.value) == told
    others["motion"] = DualReal(width=4).attach(backbone, {})
    StageBlender(groups=2).attach(backbone, others)
    with pytest.raises(JtError, match=r"^between: another controller has the adapter 'identity'"):
        StageBlender(groups=2).attach(backbone, others)


def test_the_picture_acts_on_the_motion_adapter_alone():
    backbone, asked = build("cogvideox"), ask("cogvideox")
    identity, motion, controller = attach(backbone, 2, std=0.2)
    without = put(backbone, asked, identity, controller)
    assert torch.equal(put(backbone, asked, identity, controller, shown=reference()), without)
    both = [put(backbone, asked, identity, motion, shown=reference(seed)) for seed in (1, 2)]
    assert (both[0] - both[1]).abs().max() > 1e-3
