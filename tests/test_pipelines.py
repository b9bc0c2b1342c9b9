"""Adapter files on stock diffusers pipelines: what is sampled there is what jtcore samples."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from attrs import Factory, frozen
from checkpoints.adapters import write_adapter
from checkpoints.cogvideox import LENGTH, build
from checkpoints.stock import own_pipeline
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan
from diffusers import CogVideoXPipeline, DiffusionPipeline, TextToVideoSDPipeline, WanPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import jtcore
from jtcore import JtError
from jtcore.artifact import load_weights, read_adapter
from jtcore.engine import Engine
from jtcore.model import load_model
from jtcore.plugins import load_plugins
from jtcore.recipe import Sampling
from jtcore.sample import denoise, requests
from jtcore.settings import EngineSettings

CPU = torch.device("cpu")
SEED, STEPS, GUIDANCE, SIZE = 11, 2, 5.0, (32, 48)
PROMPT, NEGATIVE = "a dog runs", "blurry"
GATED = {"kind": "glora", "targets": "visual", "rank": 3}
PLAIN = {"kind": "lora", "targets": "visual", "rank": 3, "alpha": 2.0}


@frozen(eq=False)
class Case:
    """A backbone's kind, a checkpoint of it, and diffusers' own pipeline"""

    kind: str
    folder: Path
    pipeline: type
    frames: int
    frames_first: bool = False  # in the latents that the pipeline returns
    exact: bool = False  # whether it does the same sums in the same order as we do
    options: Mapping[str, Any] = Factory(dict)  # of the pipeline's call

    @property
    def backbone(self) -> dict[str, str]:
        return {"kind": self.kind, "weights": str(self.folder)}

    def stock(self) -> DiffusionPipeline:
        """One with a denoiser of its own."""
        return own_pipeline(self.pipeline, self.folder)

    def sample(self, pipe: DiffusionPipeline) -> Tensor:  # (1, C, F, H, W)
        latents = pipe(
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            num_frames=self.frames,
            height=SIZE[0],
            width=SIZE[1],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(SEED),
            output_type="latent",
            **self.options,
        ).frames
        return latents.transpose(1, 2) if self.frames_first else latents

    def assert_same(self, found: Tensor, expected: Tensor) -> None:
        """Bit for bit, or as near as another order of the same sums comes."""
        tolerance = 0 if self.exact else 1e-5 * expected.abs().max().item()
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def wan(tmp_path_factory) -> Case:
    return Case("wan", build_wan(tmp_path_factory.mktemp("wan")), WanPipeline, frames=5)


@pytest.fixture(scope="module")
def zeroscope(tmp_path_factory) -> Case:
    folder = build_zeroscope(tmp_path_factory.mktemp("zeroscope"))
    return Case("zeroscope", folder, TextToVideoSDPipeline, frames=2, exact=True)


@pytest.fixture(scope="module")
def cogvideox(tmp_path_factory) -> Case:
    folder = build(tmp_path_factory.mktemp("cogvideox"), "5b")
    options = {"max_sequence_length": LENGTH}
    return Case("cogvideox", folder, CogVideoXPipeline, 9, True, True, options)


@pytest.fixture(params=["cogvideox", "zeroscope", "wan"])
def case(request) -> Case:
    return request.getfixturevalue(request.param)


@pytest.fixture
def pipe(case: Case) -> DiffusionPipeline:
    return case.stock()


@pytest.fixture
def gated(case: Case, tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "joint.safetensors", case.backbone, GATED)


def sample_by_jtcore(case: Case, files: Mapping[Path, float]) -> Tensor:  # (1, C, F, H, W)
    """With adapters of these files at these scales."""
    artifacts = {read_adapter(file, load_plugins()): scale for file, scale in files.items()}
    settings = Sampling(
        prompts=(PROMPT,),
        negative=NEGATIVE,
        frames=case.frames,
        size=SIZE,
        steps=STEPS,
        guidance=GUIDANCE,
        seeds=(SEED,),
    )
    backbone = next(iter(artifacts)).backbone
    encoder = backbone.spec.load_text_encoder(CPU)
    texts = {prompt: encoder.embed([prompt])[0] for prompt in (PROMPT, NEGATIVE)}
    adapters = {artifact.name: artifact.adapter for artifact in artifacts}
    model = load_model(backbone, adapters, texts, Engine(EngineSettings()), seed=0)
    for artifact in artifacts:
        load_weights(artifact, model.adapters[artifact.name])
    model.train(False)
    wanted = list(requests(settings, {one.name: scale for one, scale in artifacts.items()}))
    return denoise(wanted, settings, model, backbone.spec.latent_shape(case.frames, *SIZE))


def hooks(module: nn.Module) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in module.modules())


@pytest.mark.parametrize("adapter", [GATED, PLAIN], ids=["gated", "plain"])
def test_a_stock_pipeline_with_an_adapter_samples_what_jtcore_does(case, pipe, adapter, tmp_path):
    file = write_adapter(tmp_path / "joint.safetensors", case.backbone, adapter)
    bare = case.sample(pipe)

    jtcore.load_adapters(pipe, file)

    found = case.sample(pipe)
    case.assert_same(found, sample_by_jtcore(case, {file: 1.0}))
    assert (found - bare).abs().max() > 0.1


def test_two_adapters_at_their_scales_sample_what_jtcore_does(case, pipe, gated, tmp_path):
    plain = write_adapter(tmp_path / "plain.safetensors", case.backbone, PLAIN, seed=8)

    loaded = jtcore.load_adapters(pipe, [gated, str(plain)], scale=0.5)
    loaded.scale("plain", -0.25)

    assert loaded.scales == {"joint": 0.5, "plain": -0.25}
    case.assert_same(case.sample(pipe), sample_by_jtcore(case, {gated: 0.5, plain: -0.25}))


@pytest.mark.parametrize(
    ("sampled", "scales"),
    [({"scales": {"joint": 0.25}}, {"joint": 0.25}), ({"scales": {"joint": 0}}, {"joint": 0})],
)
def test_an_adapter_is_on_at_the_scale_of_its_recipe(pipe, gated, tmp_path, sampled, scales):
    file = as_sampled(gated, tmp_path / "joint.safetensors", **sampled)
    assert jtcore.load_adapters(pipe, file).scales == scales
    assert jtcore.load_adapters(pipe, file, scale=1).scales == {"joint": 1}


def test_a_schedule_that_a_stock_pipeline_does_not_follow_is_told(pipe, gated, tmp_path):
    weak_first = {"joint": {"unit": "step", "at": [1.0], "scales": [0.4, 0.8], "on": "both"}}
    file = as_sampled(gated, tmp_path / "joint.safetensors", schedule=weak_first)
    told = "its recipe sampled with a schedule of scales, which stock pipelines do not follow; "
    with pytest.raises(JtError) as caught:
        jtcore.load_adapters(pipe, file)
    assert str(caught.value) == f"{file}: {told}give a `scale`, or take jt-sample"
    assert jtcore.load_adapters(pipe, file, scale=0.8).scales == {"joint": 0.8}


def as_sampled(source: Path, to: Path, **sampled: Any) -> Path:
    """The adapter file as that of a recipe which sampled so."""
    with safe_open(source, "pt") as file:
        ((key, facts),) = file.metadata().items()
    table = {"prompts": ["a cat"], "frames": 1, "size": [32, 32], **sampled}
    save_file(load_file(source), to, {key: json.dumps(json.loads(facts) | {"sample": table})})
    return to


def test_at_scale_zero_even_nan_weights_change_nothing(case, pipe, gated, tmp_path):
    bare = case.sample(pipe)
    with safe_open(gated, "pt") as file:
        metadata = file.metadata()
    ruined = {name: weight * torch.nan for name, weight in load_file(gated).items()}
    save_file(ruined, tmp_path / "ruined.safetensors", metadata)

    loaded = jtcore.load_adapters(pipe, tmp_path / "ruined.safetensors", scale=0)
    assert torch.equal(case.sample(pipe), bare)

    loaded.scale("joint", 1)
    assert case.sample(pipe).isnan().any()


def test_a_gate_over_the_batch_sees_what_the_pipeline_hands_over_at_once(case, pipe, tmp_path):
    over = {**GATED, "gate_over": "batch"}
    file = write_adapter(tmp_path / "joint.safetensors", case.backbone, over)

    jtcore.load_adapters(pipe, file)

    found, expected = case.sample(pipe), sample_by_jtcore(case, {file: 1.0})
    if case.kind == "wan":  # whose pipeline has each half of guidance alone
        assert (found - expected).abs().max() > 1e-4
    else:
        case.assert_same(found, expected)


@pytest.fixture
def stock(wan: Case) -> DiffusionPipeline:
    return wan.stock()


@pytest.fixture
def joint(wan: Case, tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "joint.safetensors", wan.backbone, GATED)


def test_removed_adapters_leave_the_pipeline_as_it_was(wan, stock, joint):
    before, bare = hooks(stock.transformer), wan.sample(stock)
    first, second = (jtcore.load_adapters(stock, joint) for _ in range(2))
    with_both = wan.sample(stock)

    first.remove()
    first.remove()
    with_one = wan.sample(stock)
    second.remove()

    assert torch.equal(wan.sample(stock), bare)
    assert not torch.equal(with_one, with_both) and not torch.equal(with_one, bare)
    assert hooks(stock.transformer) == before


def test_a_denoiser_that_fails_is_left_with_adapters_off(wan, stock, joint):
    jtcore.load_adapters(stock, joint)
    expected = wan.sample(stock)

    def fail(*values: Any) -> None:
        raise RuntimeError("out of memory")

    failing = stock.transformer.blocks[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        wan.sample(stock)
    failing.remove()

    assert torch.equal(wan.sample(stock), expected)


def test_an_offloaded_denoiser_samples_the_same(wan, stock, joint):
    kept = wan.stock()
    jtcore.load_adapters(kept, joint)
    cpu_offload(stock.transformer, execution_device=CPU)  # no weights between calls

    jtcore.load_adapters(stock, joint)

    assert torch.equal(wan.sample(stock), wan.sample(kept))


def test_a_denoiser_in_bfloat16_is_adapted_too(wan, stock, joint):
    nn.Module.to(stock.transformer, torch.bfloat16)
    bare = wan.sample(stock)

    jtcore.load_adapters(stock, joint)

    exact = sample_by_jtcore(wan, {joint: 1.0})
    assert (wan.sample(stock) - exact).norm() < 0.1 * (bare - exact).norm()


GAIN = """
    import torch
    from attrs import Factory, frozen
    from torch import nn

    from jtcore import hookimpl
    from jtcore.adapter import Adapter

    class GainAdapter(Adapter):
        def __init__(self, block):
            super().__init__()
            self.gain = nn.Parameter(torch.zeros(()))
            block.register_forward_pre_hook(self.amplify)

        def amplify(self, block, inputs):
            if self.current is not None:
                return (inputs[0] * (1 + self.gain), *inputs[1:])

    @frozen
    class Gain:
        def attach(self, backbone, others):
            return GainAdapter(next(iter(backbone.blocks().values())))

    @hookimpl
    def jt_adapters():
        return {"gain": Gain}
"""


def test_an_adapter_of_a_local_plugin_is_loaded_and_removed(wan, stock, plugin_folder, tmp_path):
    folder = plugin_folder(gain=GAIN)
    file = tmp_path / "gain.safetensors"
    write_adapter(file, wan.backbone, {"kind": "gain"}, folders=[folder])
    before, bare = hooks(stock.transformer), wan.sample(stock)

    loaded = jtcore.load_adapters(stock, file, plugin_folders=[folder])
    assert not torch.equal(wan.sample(stock), bare)
    loaded.remove()

    assert torch.equal(wan.sample(stock), bare)
    assert hooks(stock.transformer) == before


def refused(pipe: object, files: Any, **options: Any) -> str:
    """What is said of adapters that cannot be loaded; a denoiser is left as it was."""
    before = hooks(pipe.transformer) if hasattr(pipe, "transformer") else 0
    with pytest.raises(JtError) as caught:
        jtcore.load_adapters(pipe, files, **options)
    assert before == (hooks(pipe.transformer) if hasattr(pipe, "transformer") else 0)
    return str(caught.value)


def test_an_adapter_of_another_architecture_is_told(zeroscope, stock, joint, tmp_path):
    other = write_adapter(tmp_path / "other.safetensors", zeroscope.backbone, GATED)
    tensors = len(load_file(joint)) + len(load_file(other))
    assert refused(stock, [joint, other]) == (
        f"{other}: trained on 'zeroscope', it does not fit this WanTransformer3DModel: {other}:"
        f" {tensors} tensors do not fit the adapter, the first 'blocks.0.attn1.to_k.down.weight'"
    )


def test_targets_that_are_not_there_are_told(zeroscope, stock, tmp_path):
    temporal = {**GATED, "targets": "temporal_ff"}
    other = write_adapter(tmp_path / "other.safetensors", zeroscope.backbone, temporal)
    said = refused(stock, other)
    assert said.startswith(
        f"{other}: trained on 'zeroscope', it does not fit this WanTransformer3DModel:"
        " adapter.other: unknown target role 'temporal_ff'"
    )


def test_a_missing_plugin_is_told(wan, stock, plugin_folder, tmp_path):
    file = tmp_path / "gain.safetensors"
    write_adapter(file, wan.backbone, {"kind": "gain"}, folders=[plugin_folder(gain=GAIN)])
    assert refused(stock, file).startswith(f"{file}: adapters.kind: unknown adapter 'gain'; ")


def test_a_pipeline_of_an_unknown_kind_is_told(joint):
    assert refused(object(), joint).startswith(
        "object is of no kind that a backbone knows; known are the pipelines of "
    )


def test_two_adapters_of_one_name_are_told(stock, joint):
    assert refused(stock, [joint, joint]) == (
        f"{joint} and {joint} both hold an adapter named 'joint'; give one another name, as in"
        f" other={joint}"
    )


def test_no_adapter_at_all_is_told(stock):
    assert refused(stock, []) == "load_adapters: expected at least one adapter file"


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "1", True])
def test_a_scale_that_is_no_number_is_told(stock, joint, scale):
    said = f"the scale of 'joint' must be a finite number, found {scale!r}"
    assert refused(stock, joint, scale=scale) == said


def test_the_scale_of_an_unknown_adapter_is_told(stock, joint):
    loaded = jtcore.load_adapters(stock, joint)
    with pytest.raises(JtError, match=r"^no adapter 'joined'; did you mean 'joint'\?$"):
        loaded.scale("joined", 1)


def test_diffusers_cannot_load_a_gated_adapter_without_its_gates(wan, stock, joint):
    pytest.importorskip("peft", reason="without it diffusers loads no LoRA at all")
    with pytest.raises(ValueError, match="Invalid LoRA checkpoint"):
        stock.load_lora_weights(joint)
    assert not any("lora" in name for name, _ in stock.transformer.named_modules())


def test_importing_jtcore_is_cheap():
    code = "import sys, jtcore; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_attribute_that_is_not_there_is_no_import():
    with pytest.raises(AttributeError, match="module 'jtcore' has no attribute 'load_adapter'"):
        jtcore.load_adapter  # noqa: B018 - asking is the test
