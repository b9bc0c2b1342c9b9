"""The UNet against stock diffusers: its roles, its answers, single frames and checkpointing."""

from copy import deepcopy

import pytest
import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Generator, Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from jtcore import JtError
from jtcore.adapter import Adapter, switched_on
from jtcore.checkpointing import checkpoint_gradients
from jtplugins.adapters.glora import GLoRA
from jtplugins.adapters.lora import LoRA
from jtplugins.backbones._roles import UNET as ROLES
from jtplugins.backbones._unet import UNetBackbone, bypass_temporal

TEMPORAL = (TransformerTemporalModel, TemporalConvLayer)


def build(prediction: str = "epsilon") -> UNetBackbone:
    """Two levels, of one layer each; nothing is zero, as temporal convolutions are at first."""
    torch.manual_seed(0)
    denoiser = UNet3DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        norm_num_groups=4,
        cross_attention_dim=6,
        attention_head_dim=4,
    )
    for module in denoiser.modules():
        if isinstance(module, TemporalConvLayer):
            nn.init.normal_(module.conv4[-1].weight, std=0.2)
            nn.init.normal_(module.conv4[-1].bias, std=0.2)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    return UNetBackbone(denoiser.requires_grad_(False).eval(), scheduler)


@pytest.fixture
def backbone() -> UNetBackbone:
    return build()


@pytest.fixture(scope="module")
def published() -> UNetBackbone:
    """Without weights: diffusers' defaults are the published size."""
    with torch.device("meta"):
        return UNetBackbone(UNet3DConditionModel(), DDIMScheduler())


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def question(frames: int = 3, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, times and text of a batch of two."""
    return draw(2, 4, frames, 4, 4, seed=seed), torch.tensor([100, 900]), draw(2, 5, 6, seed=seed)


def trained(spec, backbone: UNetBackbone) -> Adapter:
    adapter = spec.attach(backbone, {})
    for weight in adapter.parameters():
        nn.init.normal_(weight, std=0.3)
    return adapter.eval()


def gradients(backbone: UNetBackbone, adapter: Adapter, frames: int = 3) -> dict[str, Tensor]:
    """Of the mean square of the answer, and the mean square itself; with dropout from one seed."""
    adapter.train().zero_grad()
    torch.manual_seed(3)
    with switched_on({adapter: 1.0}, 2):
        loss = backbone.predict(*question(frames)).square().mean()
        loss.backward()
    found = {name: weight.grad for name, weight in adapter.named_parameters()}
    return {name: grad for name, grad in found.items() if grad is not None} | {"": loss.detach()}


def test_an_answer_is_that_of_the_stock_network(backbone):
    latents, times, text = question()
    expected = backbone.denoiser(latents, times, text).sample
    assert torch.equal(backbone.predict(latents, times, text), expected)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_target_are_those_of_the_stock_scheduler(prediction):
    backbone, clean = build(prediction), draw(64, 4, 2, 2, 2)
    noised = backbone.noise(clean, seeded())
    rng = seeded()
    times = torch.randint(1000, (64,), generator=rng)
    noise = torch.randn(clean.shape, generator=rng)
    stock = backbone.scheduler
    target = noise if prediction == "epsilon" else stock.get_velocity(clean, noise, times)
    assert torch.equal(noised.times, times)
    torch.testing.assert_close(noised.latents, stock.add_noise(clean, noise, times))
    torch.testing.assert_close(noised.target, target)


def test_levels_are_those_of_the_schedule_that_it_was_trained_with(backbone):
    times = torch.tensor([200, 400, 600, 800])
    known = torch.tensor([0.754, 0.424, 0.161, 0.0369], dtype=torch.float64)
    torch.testing.assert_close(backbone.levels(times).signal.square(), known, rtol=5e-3, atol=0)


def linears_under(network: nn.Module, kind: type, parts: tuple[str, ...]) -> set[str]:
    """As the released code finds them: by the class of an ancestor and a part of the name."""
    return {
        f"{name}.{inner}".lstrip(".")
        for name, module in network.named_modules()
        if isinstance(module, kind)
        for inner, linear in module.named_modules()
        if isinstance(linear, nn.Linear) and any(f".{part}." in f".{inner}." for part in parts)
    }


@pytest.mark.parametrize(
    ("role", "kind", "parts", "count"),
    [
        ("spatial", Transformer2DModel, ("attn1", "ff"), 96),
        ("spatial_self", Transformer2DModel, ("attn1",), 64),
        ("spatial_ff", Transformer2DModel, ("ff",), 32),
        ("text_cross", Transformer2DModel, ("attn2",), 64),
        ("text_kv", Transformer2DModel, ("attn2.to_k", "attn2.to_v"), 32),
        ("temporal", TransformerTemporalModel, ("attn1", "attn2", "ff"), 170),
        ("temporal_self", TransformerTemporalModel, ("attn1", "attn2"), 136),
        ("temporal_ff", TransformerTemporalModel, ("ff",), 34),
        ("attention", UNet3DConditionModel, ("attn1", "attn2"), 264),
        ("attention_qkv", UNet3DConditionModel, ("to_q", "to_k", "to_v"), 198),
        ("feed_forward", UNet3DConditionModel, ("ff",), 66),
    ],
)
def test_a_role_has_the_linears_that_the_released_code_would_find(
    published, role, kind, parts, count
):
    found = published.targets(role)
    assert found.keys() == linears_under(published.denoiser, kind, parts)
    assert len(found) == count


def test_visual_is_what_jointtuner_trains(published):
    spatial, temporal = published.targets("spatial"), published.targets("temporal")
    assert published.targets("visual").keys() == spatial.keys() | temporal.keys()
    assert len(published.targets("visual")) == 266
    assert any(name.startswith("transformer_in.") for name in published.targets("visual"))


@pytest.mark.parametrize(
    ("spec", "millions"),
    [
        (GLoRA("visual", rank=32), 21.5),
        (GLoRA("spatial", rank=32), 8.90),
        (GLoRA("temporal", rank=32), 12.64),
        (LoRA("spatial", rank=32), 8.79),
        (LoRA("temporal", rank=32), 12.47),
    ],
)
def test_adapters_of_rank_32_have_as_many_parameters_as_the_released(published, spec, millions):
    parameters = sum(weight.numel() for weight in spec.attach(published, {}).parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.05 if millions == 21.5 else 0.005)


def test_the_keys_and_values_of_the_text_are_those_that_newmove_trains(published):
    weights = sum(linear.weight.numel() for linear in published.targets("text_kv").values())
    assert weights / 1e6 == pytest.approx(25.6, abs=0.05)


def test_temporal_convolutions_are_all_there_and_low_rank_adapters_refuse_them(published):
    found = published.targets("temporal_conv")
    every = {n for n, m in published.denoiser.named_modules() if isinstance(m, nn.Conv3d)}
    assert found.keys() == every and len(every) == 88
    with pytest.raises(JtError, match=r"need linear layers, but .* and 87 more; narrow `targets`"):
        LoRA("temporal_conv").attach(published, {})


def test_every_role_matches_something(published):
    assert all(published.targets(role) for role in ROLES)


def test_blocks_are_all_transformer_blocks_in_the_order_in_which_they_run(backbone):
    ran = []
    for name, module in backbone.denoiser.named_modules():
        if isinstance(module, BasicTransformerBlock):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    backbone.predict(*question())
    assert list(backbone.blocks()) == ran
    assert all(isinstance(block, BasicTransformerBlock) for block in backbone.blocks().values())


def test_at_the_published_size_there_are_16_spatial_and_17_temporal_blocks(published):
    names = list(published.blocks())
    assert len(names) == 33
    assert names[:3] == [
        "transformer_in.transformer_blocks.0",
        "down_blocks.0.attentions.0.transformer_blocks.0",
        "down_blocks.0.temp_attentions.0.transformer_blocks.0",
    ]
    assert sum(".attentions." in name for name in names) == 16


@pytest.mark.parametrize(("over", "leaks"), [("sample", False), ("batch", True)])
def test_only_the_batch_gate_lets_a_sample_see_its_neighbour(backbone, over, leaks):
    adapter = trained(GLoRA("attention", rank=4, gate_over=over), backbone)
    latents, times, text = question()
    other_latents, _, other_text = question(seed=2)

    def first(latents: Tensor, times: Tensor, text: Tensor) -> Tensor:
        with torch.no_grad(), switched_on({adapter: 1.0}, 2):
            return backbone.predict(latents, times, text)[0]

    beside_another = first(
        torch.stack([latents[0], other_latents[1]]),
        torch.tensor([100, 5]),
        torch.stack([text[0], other_text[1]]),
    )
    assert torch.equal(first(latents, times, text), beside_another) is not leaks


def test_a_gate_is_the_mean_over_all_frames_or_places_of_its_own_sample(backbone):
    adapter = trained(GLoRA("visual", rank=4), backbone)
    name = "down_blocks.0.temp_attentions.0.transformer_blocks.0.attn2.to_v"
    update, linear = adapter.get_submodule(name), backbone.denoiser.get_submodule(name)
    seen = []
    linear.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad(), switched_on({adapter: 1.0}, 2):
        backbone.predict(*question())
    (x, output) = seen[0]
    assert x.shape[:2] == (2 * 4 * 4, 3)  # places of both samples, frames
    own = x[: 4 * 4]
    gate = torch.sigmoid(own @ update.gate.weight.T).mean()
    added = gate * (own @ update.down.weight.T @ update.up.weight.T)
    torch.testing.assert_close(output[: 4 * 4], own @ linear.weight.T + added)


def silenced(backbone: UNetBackbone) -> UNetBackbone:
    """A copy whose temporal modules add zero to what they are given."""
    copy = UNetBackbone(deepcopy(backbone.denoiser), backbone.scheduler)
    for module in copy.denoiser.modules():
        if isinstance(module, TEMPORAL):
            conv = isinstance(module, TemporalConvLayer)
            last = module.conv4[-1] if conv else module.proj_out
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    return copy


def bypassing(backbone: UNetBackbone) -> UNetBackbone:
    copy = UNetBackbone(deepcopy(backbone.denoiser), backbone.scheduler)
    bypass_temporal(copy.denoiser)
    return copy


def test_bypassed_temporal_modules_do_nothing_to_a_single_frame(backbone):
    found = bypassing(backbone).predict(*question(frames=1))
    assert torch.equal(found, silenced(backbone).predict(*question(frames=1)))
    assert not torch.allclose(found, backbone.predict(*question(frames=1)), atol=1e-3)


def test_bypassing_is_nothing_to_several_frames(backbone):
    expected = backbone.predict(*question(frames=2))
    assert torch.equal(bypassing(backbone).predict(*question(frames=2)), expected)


def test_a_single_frame_runs_no_temporal_layer_where_they_are_bypassed(backbone):
    ran = set()
    network = bypassing(backbone)
    for name, module in network.denoiser.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
    network.predict(*question(frames=1))
    inside = ("temp_attentions", "temp_convs", "transformer_in")
    layers = network.targets("temporal").keys() | network.targets("temporal_conv").keys()
    assert all(any(part in name for part in inside) for name in layers)
    assert not ran & layers
    assert network.targets("spatial").keys() <= ran


@pytest.mark.parametrize("mode", ["native", "bypass_temporal"])
def test_an_image_trains_temporal_adapters_in_native_mode_alone(backbone, mode):
    if mode == "bypass_temporal":
        bypass_temporal(backbone.denoiser)
    adapter = trained(LoRA("visual", rank=4), backbone)
    found = gradients(backbone, adapter, frames=1).items()
    reached = {n.rsplit(".", 2)[0] for n, grad in found if n and grad.abs().max() > 1e-7}
    spatial = backbone.targets("spatial").keys()
    if mode == "bypass_temporal":
        assert reached == spatial
    else:  # of one frame alone, attention passes on values whatever queries and keys are
        silent = {n for n in backbone.targets("temporal") if n.endswith(("to_q", "to_k"))}
        assert reached == backbone.targets("visual").keys() - silent


def checkpoint_before(backbone: UNetBackbone, spec) -> Adapter:
    checkpoint_gradients(backbone)
    return trained(spec, backbone)


def checkpoint_after(backbone: UNetBackbone, spec) -> Adapter:
    adapter = trained(spec, backbone)
    checkpoint_gradients(backbone)
    return adapter


@pytest.mark.parametrize("order", [checkpoint_before, checkpoint_after])
@pytest.mark.parametrize("frames", [1, 3], ids=["image", "video"])
@pytest.mark.parametrize("bypass", [False, True], ids=["native", "bypass_temporal"])
def test_checkpointing_leaves_loss_and_gradients_exactly_as_they_are(order, frames, bypass):
    spec, plain, checkpointed = GLoRA("visual", rank=4, dropout=0.5), build(), build()
    if bypass:
        bypass_temporal(plain.denoiser)
        bypass_temporal(checkpointed.denoiser)
    adapters = trained(spec, plain), order(checkpointed, spec)
    adapters[1].load_state_dict(adapters[0].state_dict())
    expected = gradients(plain, adapters[0], frames)
    found = gradients(checkpointed, adapters[1], frames)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], grad) for name, grad in expected.items())
    assert any(grad.any() for grad in expected.values())


def bytes_saved(backbone: UNetBackbone, adapter: Adapter) -> int:
    """Of different memory that one forward pass keeps for backward, weights left out."""
    modules = (backbone.denoiser, adapter)
    weights = {weight.data_ptr() for module in modules for weight in module.parameters()}
    kept: dict[int, Tensor] = {}  # holding them keeps memory from being used twice

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with switched_on({adapter: 1.0}, 2), saved_tensors_hooks(note, lambda tensor: tensor):
        backbone.predict(*question())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_checkpointing_keeps_a_fraction_of_the_activations(backbone):
    adapter = trained(GLoRA("visual", rank=4), backbone)
    plain = bytes_saved(backbone, adapter)
    checkpoint_gradients(backbone)
    assert 0 < bytes_saved(backbone, adapter) < plain / 5


def test_checkpointing_asked_for_twice_runs_each_module_twice_and_no_more(backbone):
    adapter = trained(LoRA("spatial", rank=4), backbone)
    checkpoint_gradients(backbone)
    checkpoint_gradients(backbone)
    runs = []
    backbone.denoiser.mid_block.attentions[0].proj_in.register_forward_hook(
        lambda *_: runs.append(1)
    )
    gradients(backbone, adapter)
    assert len(runs) == 2


def test_a_copy_of_a_checkpointed_network_runs_its_own_weights(backbone):
    bypass_temporal(backbone.denoiser)
    checkpoint_gradients(backbone)
    copy = UNetBackbone(deepcopy(backbone.denoiser), backbone.scheduler)
    expected = copy.predict(*question())
    for weight in backbone.denoiser.parameters():
        nn.init.constant_(weight, torch.nan)
    assert torch.equal(copy.predict(*question()), expected)


def test_names_and_weights_are_as_they_were_when_wrapped(backbone):
    before = {name: id(module) for name, module in backbone.denoiser.named_modules()}
    weights = list(backbone.denoiser.state_dict())
    bypass_temporal(backbone.denoiser)
    checkpoint_gradients(backbone)
    assert {name: id(module) for name, module in backbone.denoiser.named_modules()} == before
    assert list(backbone.denoiser.state_dict()) == weights


@pytest.mark.parametrize("name", ["ddim", "dpm"])
@pytest.mark.parametrize("steps", [8, 30])
def test_a_perfect_answer_is_sampled_to_the_clean_latents(backbone, name, steps):
    clean, sampler = draw(2, 4, 2, 2, 2), backbone.sampler(steps, name)
    latents = sampler.start(clean.shape, seeded())
    for index, time in enumerate(sampler.times):
        at = backbone.levels(time[None])
        signal, sigma = at.over(latents)
        latents = sampler.step((latents - signal * clean) / sigma, index, latents, seeded())
    # DDIM of this schedule ends at its first level, whose noise is 3 % of the variance at most
    torch.testing.assert_close(latents, clean, atol=0.15, rtol=0)


@pytest.mark.parametrize(
    ("name", "steps", "most"), [("ddim", 1000, 999), ("ddim", 1001, 1000), ("dpm", 1001, 1000)]
)
def test_steps_that_the_schedule_has_not_are_refused(backbone, name, steps, most):
    with pytest.raises(JtError, match=f"^{steps} steps of denoising; the schedule has {most}"):
        backbone.sampler(steps, name)


def test_an_unknown_scheduler_is_answered_with_the_nearest(backbone):
    with pytest.raises(JtError, match=r"^unknown scheduler 'dmp'; did you mean 'dpm'\?$"):
        backbone.sampler(8, "dmp")
