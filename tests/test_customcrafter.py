"""CustomCrafter (https://arxiv.org/abs/2408.13239): a word and a weak LoRA on real paths."""

from pathlib import Path

import pytest
import torch
from checkpoints.unet import build_zeroscope
from torch import Tensor

from jtcore.adapter import Adapter
from jtcore.engine import Engine
from jtcore.model import Model, attach_adapters
from jtcore.plugins import load_plugins
from jtcore.reading import read, replaced_words
from jtcore.recipe import Sampling, build_recipe
from jtcore.sample import denoise, requests
from jtcore.scales import ScaleSchedule, moments
from jtcore.settings import EngineSettings
from jtcore.structure import Component
from jtcore.tables import read_table
from jtplugins.adapters.lora import LoRA
from jtplugins.adapters.token import Token
from jtplugins.backbones.pocket import Pocket
from jtplugins.backbones.zeroscope import ZeroScope

CPU = torch.device("cpu")
RECIPES = Path(__file__).parents[1] / "recipes"
PROMPTS = ("a <new1> moves left", "a ball moves left")
QKV = "*.attentions.*.attn[12].to_[qkv]"
STEPS = 5


class Listener(Adapter):
    """Notes the scale of each pass over each sample."""

    def __init__(self, backbone) -> None:
        super().__init__()
        self.heard: list[tuple[float, ...]] = []
        backbone.denoiser.register_forward_pre_hook(self.listen)

    def listen(self, module, inputs) -> None:
        if self.current is not None:
            scale = torch.as_tensor(self.current.scale)
            self.heard.append(tuple(scale.expand(self.current.batch, 1, 1).flatten().tolist()))


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> ZeroScope:
    return ZeroScope(str(build_zeroscope(tmp_path_factory.mktemp("zeroscope"))))


@pytest.fixture(scope="module")
def model(spec) -> Model:
    """With a word and a LoRA as if they were trained."""
    components = {
        "token": Component("token", Token("<new1>", "wug")),
        "sslm": Component("lora", LoRA(QKV, rank=2, dropout=0.0)),
    }
    backbone = spec.load(CPU, torch.float32)
    adapters = attach_adapters(components, backbone, seed=0)
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in (weight for each in adapters.values() for weight in each.parameters()):
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=0.3)
    adapters["listener"] = Listener(backbone)
    encoder, replaced = spec.load_text_encoder(CPU), replaced_words(components)
    asked = (*PROMPTS, "", "a wug moves left")
    texts = {each: encoder.embed([read(each, replaced).text])[0] for each in asked}
    for adapter in adapters.values():
        adapter.eval()
    return Model(backbone, adapters, texts, Engine(EngineSettings(device="cpu")))


def sampled(model: Model, spec, scales, **options) -> Tensor:
    plain = {"prompts": PROMPTS, "frames": 2, "size": (32, 32), "steps": STEPS, "guidance": 12.0}
    asked = Sampling(**plain | options)
    shape = spec.latent_shape(asked.frames, *asked.size)
    return denoise(list(requests(asked, scales)), asked, model, shape)


def in_two(first: float, then: float) -> dict[str, ScaleSchedule]:
    """Scales before and from the third of five steps."""
    return {"sslm": ScaleSchedule("step", (2.0,), (first, then))}


def test_equal_scales_before_and_after_are_a_plain_lora_bit_exactly(model, spec):
    scheduled = sampled(model, spec, {"token": 1.0, "sslm": 1.0}, schedule=in_two(0.8, 0.8))
    assert torch.equal(scheduled, sampled(model, spec, {"token": 1.0, "sslm": 0.8}))
    assert not torch.equal(scheduled, sampled(model, spec, {"token": 1.0, "sslm": 1.0}))


def test_scales_of_0_are_the_base_model_with_the_new_word(model, spec):
    scheduled = sampled(model, spec, {"token": 1.0, "sslm": 1.0}, schedule=in_two(0, 0))
    word = sampled(model, spec, {"token": 1.0})
    assert torch.equal(scheduled, word)
    base = sampled(model, spec, {})
    assert not torch.equal(word[0], base[0])
    torch.testing.assert_close(word[1], base[1])  # its prompt has not the word


def test_the_base_model_reads_the_initial_word(model, spec):
    read_as = sampled(model, spec, {}, prompts=("a wug moves left",))
    assert torch.equal(sampled(model, spec, {}, prompts=PROMPTS[:1]), read_as)


def test_each_half_of_each_step_hears_its_scale_once(model, spec):
    listener = model.adapters["listener"]
    listener.heard.clear()
    schedule = {"listener": ScaleSchedule("step", (2.0,), (0.4, 0.8))}
    sampled(model, spec, {"token": 1.0, "listener": 1.0}, schedule=schedule, prompts=PROMPTS[:1])
    halves = 2
    assert [len(scales) for scales in listener.heard] == [halves] * STEPS
    expected = torch.tensor([[0.4] * halves] * 2 + [[0.8] * halves] * 3)
    torch.testing.assert_close(torch.tensor(listener.heard), expected)


def test_the_words_vectors_are_encoded_once_while_scales_stay(model, spec, monkeypatch):
    encoder, asked = model.adapters["token"].encoder, []
    encode = type(encoder).encode
    monkeypatch.setattr(
        type(encoder), "encode", lambda *given: asked.append(given[2]) or encode(*given)
    )
    sampled(model, spec, {"token": 1.0, "sslm": 1.0}, prompts=PROMPTS[:1])
    assert asked == [["a wug moves left"]]
    sampled(
        model, spec, {"token": 1.0, "sslm": 1.0}, schedule=in_two(0.4, 0.8), prompts=PROMPTS[:1]
    )
    assert len(asked) == 1 + 2  # and anew where some scale changes


def test_on_a_published_unet_the_first_5_of_50_steps_are_weak():
    recipe = build_recipe(read_table(RECIPES / "customcrafter_zeroscope.toml"), load_plugins())
    backbone = ZeroScope("random").load(torch.device("meta"), torch.float32)
    walk = backbone.sampler(recipe.sample.steps, recipe.sample.scheduler)
    (schedule,) = recipe.sample.schedule.values()
    heard = [schedule.halves(1.0, moment) for moment in moments(walk.times, backbone.levels)]
    assert heard == [(0.4, 0.4)] * 5 + [(0.8, 0.8)] * 45


def test_its_lora_is_that_of_the_paper_on_networks_of_published_size():
    table = read_table(RECIPES / "customcrafter_zeroscope.toml")["adapter"]["sslm"]
    backbone = ZeroScope("random").load(torch.device("meta"), torch.float32)
    spec = LoRA(**{key: value for key, value in table.items() if key != "kind"})
    adapter = spec.attach(backbone, {})
    assert len(backbone.targets(spec.targets)) == 96
    assert sum(weight.numel() for weight in adapter.parameters()) / 1e6 == pytest.approx(
        0.63, abs=0.005
    )
    assert not any("temp" in name or "to_out" in name for name in backbone.targets(spec.targets))


def test_a_run_of_two_stages_leaves_the_word_of_the_first_as_it_was(table, jt_run):
    """And no weight of the text encoder is in what is trained or saved."""
    from safetensors.torch import load_file

    table["backbone"] = {"kind": "pocket"}
    table["data"]["motion"]["frames"] = 2
    table["adapter"] = {
        "token": {"kind": "token", "word": "sks creature", "initial": "creature"},
        "sslm": {"kind": "lora", "targets": "attention_qkv", "rank": 2},
    }
    branch = {"data": ["subject"], "losses": {"appearance": {"kind": "diffusion"}}}
    both = {**branch, "adapters": ["token", "sslm"], "trains": ["sslm"]}
    table["stage"] = {
        "word": {"steps": 2, "lr": 0.1, "branch": {"b": {**branch, "adapters": ["token"]}}},
        "both": {"steps": 2, "lr": 0.1, "weight_decay": 0.5, "branch": {"b": both}},
    }
    table["sample"] |= {"prompts": ["a sks creature moves left"], "frames": 2}
    del table["metric"]
    run = jt_run(table)
    del table["stage"]["both"]
    del table["adapter"]["sslm"]
    alone = jt_run(table, name="alone")
    found, expected = (load_file(each / "adapters/token.safetensors") for each in (run, alone))
    assert found.keys() == {"initial", "vectors"}
    assert torch.equal(found["vectors"], expected["vectors"])
    assert not torch.equal(found["vectors"], found["initial"])
    known = Pocket().load_text_encoder(CPU).vectors(["creature"])[0, :1]
    assert torch.equal(found["initial"], known)
