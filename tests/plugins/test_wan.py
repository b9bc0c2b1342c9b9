"""Wan's flow and network against stock diffusers and the definitions."""

from logging import getLogger

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from torch import Generator, Tensor, nn

from jtcore.checkpointing import checkpoint_gradients
from jtplugins.adapters.glora import GLoRA
from jtplugins.backbones._networks import freeze
from jtplugins.backbones._roles import WAN as ROLES
from jtplugins.backbones._wan import WanBackbone
from jtplugins.backbones.wan import Wan

CPU, META = torch.device("cpu"), torch.device("meta")
UNIPC = UniPCMultistepScheduler(
    prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
)
EULER = FlowMatchEulerDiscreteScheduler(shift=3.0)


def build_transformer(dtype: torch.dtype = torch.float32) -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    ).eval()


def build(shift: float = 3.0, scheduler=UNIPC) -> WanBackbone:
    return WanBackbone(build_transformer().requires_grad_(False), scheduler, shift)


@pytest.fixture(scope="module")
def backbone() -> WanBackbone:
    return build()


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def sigmas(times: Tensor) -> Tensor:  # (B,) -> (B, 1, 1, 1, 1)
    return (times.double() / 1000).view(-1, 1, 1, 1, 1)


def test_latents_and_noise_can_be_recovered_from_the_noised_and_the_flow(backbone):
    x0 = draw(64, 4, 2, 2, 2)
    noised = backbone.noise(x0, seeded())
    sigma = sigmas(noised.times)
    torch.testing.assert_close((noised.latents - sigma * noised.target).float(), x0)
    noise = noised.latents + (1 - sigma) * noised.target
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_times_are_distributed_as_a_shifted_uniform_draw(shift):
    latents = torch.zeros(40_000, 1, 1, 1, 1)
    sigma = build(shift).noise(latents, seeded()).times.double().sort().values / 1000
    expected = sigma / (shift - (shift - 1) * sigma)  # the share of draws below: u, solved for
    found = (torch.arange(len(sigma)) + 0.5) / len(sigma)
    assert (found - expected).abs().max() < 0.01
    assert sigma[0] > 0 and sigma[-1] <= 1


def test_signal_and_noise_add_up_to_one_along_a_flow(backbone):
    levels = backbone.levels(torch.tensor([0.0, 250.0, 999.0, 1000.0]))
    assert levels.sigma.tolist() == [0, 0.25, 0.999, 1]
    torch.testing.assert_close(levels.signal, 1 - levels.sigma)
    assert levels.log_snr[-1] == -torch.inf


@pytest.mark.parametrize("name", ["unipc", "euler"])
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_a_perfect_prediction_is_sampled_to_the_clean_latents(backbone, name, steps):
    x0, sampler = draw(2, 4, 2, 2, 2), backbone.sampler(steps, name)
    latents = sampler.start(x0.shape, seeded())
    flow = latents - x0  # a straight line: the same all the way
    for index in range(steps):
        latents = sampler.step(flow, index, latents, seeded())
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, x0, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stock", [UNIPC, EULER], ids=["unipc", "euler"])
def test_the_default_scheduler_is_the_checkpoints_own_with_the_shift_asked_for(stock):
    key = "flow_shift" if stock is UNIPC else "shift"
    expected = type(stock).from_config(stock.config, **{key: 5.0})
    expected.set_timesteps(7)
    sampler = build(5.0, stock).sampler(7)
    assert type(sampler.scheduler) is type(stock)
    assert torch.equal(torch.stack(list(sampler.times)), expected.timesteps)
    assert torch.equal(sampler.scheduler.sigmas, expected.sigmas)


@pytest.mark.parametrize("stock", [UNIPC, EULER], ids=["unipc", "euler"])
def test_another_scheduler_has_the_same_shift_and_says_nothing_of_foreign_options(stock, caplog):
    getLogger("diffusers").addHandler(caplog.handler)  # its loggers do not propagate
    other = "euler" if stock is UNIPC else "unipc"
    config = build(5.0, stock).sampler(7, other).scheduler.config
    assert (config.shift if other == "euler" else config.flow_shift) == 5.0
    getLogger("diffusers").removeHandler(caplog.handler)
    assert caplog.messages == []


def test_steps_so_many_that_rounded_times_repeat_begin_at_the_first(backbone):
    sampler = build(12.0).sampler(200, "unipc")
    assert sampler.times[0] == sampler.times[1]
    latents = sampler.start((1, 4, 1, 2, 2), seeded())
    sampler.step(latents, 0, latents, seeded())
    assert sampler.scheduler.step_index == 1


@pytest.mark.parametrize("frames", [1, 3])
def test_a_prediction_is_that_of_the_stock_transformer(backbone, frames):
    latents, text = draw(2, 4, frames, 4, 6), draw(2, 5, 8)
    times = torch.tensor([3.25, 900.5])
    expected = build_transformer()(
        hidden_states=latents, timestep=times, encoder_hidden_states=text
    ).sample
    assert torch.equal(backbone.predict(latents, times, text), expected)


def test_what_diffusers_keeps_in_float32_is_kept_so(tmp_path):
    build_transformer().save_pretrained(tmp_path)
    stock = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    ours = freeze(build_transformer(), CPU, torch.bfloat16)

    def dtypes(model: nn.Module) -> dict[str, torch.dtype]:
        return {
            name: one.dtype for name, one in (*model.named_parameters(), *model.named_buffers())
        }

    assert dtypes(ours) == dtypes(stock)
    assert set(dtypes(stock).values()) == {torch.float32, torch.bfloat16}
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), stock.buffers(), strict=True))


def test_recomputed_activations_give_the_same_gradients():
    def gradients(checkpoint: bool) -> list[Tensor]:
        backbone = build()
        backbone.denoiser.requires_grad_(True)
        if checkpoint:
            checkpoint_gradients(backbone)
        flow = backbone.predict(draw(1, 4, 3, 4, 4), torch.tensor([500.0]), draw(1, 5, 8))
        flow.square().sum().backward()
        return [parameter.grad for parameter in backbone.denoiser.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(gradients(False), gradients(True), strict=True))


def test_recomputing_keeps_less_for_backward():
    def kept(checkpoint: bool) -> int:
        backbone, sizes = build(), []
        backbone.denoiser.requires_grad_(True)
        if checkpoint:
            checkpoint_gradients(backbone)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(x.nbytes) or x, lambda x: x
        ):
            backbone.predict(draw(1, 4, 3, 8, 8), torch.tensor([500.0]), draw(1, 5, 8))
        return sum(sizes)

    assert kept(True) < kept(False) / 2


SIZES = [  # parameters and blocks
    ("1.3b", 1_418_996_800, 30),
    ("14b", 14_288_491_584, 40),
]


@pytest.mark.parametrize(("config", "parameters", "layers"), SIZES)
def test_random_weights_have_the_published_sizes_and_roles(config, parameters, layers):
    backbone = Wan("random", config=config).load(META, torch.bfloat16)
    assert sum(weight.numel() for weight in backbone.denoiser.parameters()) == parameters
    assert list(backbone.blocks()) == [f"blocks.{index}" for index in range(layers)]
    counts = {
        "visual": 6,
        "attention": 8,
        "attention_qkv": 6,
        "feed_forward": 2,
        "video_self": 4,
        "spatial_self": 4,
        "spatial_ff": 2,
        "temporal_self": 4,
        "text_cross": 4,
        "text_kv": 2,
        "temporal_layers": 1,
    }
    found = {role: len(backbone.targets(role)) for role in counts}
    assert found == {role: each * layers for role, each in counts.items()}
    assert counts.keys() == ROLES.keys()


def test_roles_lead_to_the_layers_that_they_name():
    backbone = Wan("random", layers=1).load(META, torch.float32)

    def names(role: str) -> set[str]:
        return set(backbone.targets(role))

    video = {f"blocks.0.attn1.{one}" for one in ("to_q", "to_k", "to_v", "to_out.0")}
    feed_forward = {"blocks.0.ffn.net.0.proj", "blocks.0.ffn.net.2"}
    assert names("visual") == video | feed_forward
    assert names("text_cross") == {name.replace("attn1", "attn2") for name in video}
    assert names("text_kv") == {"blocks.0.attn2.to_k", "blocks.0.attn2.to_v"}
    assert names("attention_qkv") == {
        f"blocks.0.attn{which}.to_{one}" for which in (1, 2) for one in "qkv"
    }


@pytest.mark.parametrize(("config", "count"), [("1.3b", 180), ("14b", 240)])
def test_jointtuners_adapter_gates_every_linear_that_sees_the_video(config, count):
    adapter = GLoRA("visual", rank=128).attach(
        Wan("random", config=config).load(META, torch.float32), {}
    )
    gates = [name for name, _ in adapter.named_parameters() if name.endswith("gate.weight")]
    assert len(gates) == count
