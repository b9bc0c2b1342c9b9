"""Other tools' adapter files against those tools, and against formulas in plain torch."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from checkpoints.adapters import write_adapter
from checkpoints.cogvideox import LENGTH, build
from checkpoints.stock import denoiser, own_pipeline
from checkpoints.unet import build_unet, build_zeroscope
from checkpoints.wan import build_wan
from diffusers import (
    CogVideoXPipeline,
    DiffusionPipeline,
    TextToVideoSDPipeline,
    WanPipeline,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import jtcore
from jtcore import cli
from jtplugins.backbones.cogvideox import CogVideoX
from jtplugins.backbones.zeroscope import ZeroScope
from jtplugins.formats.diffusers_lora import DiffusersLoRA
from jtplugins.formats.jointtuner import LAYOUT as JOINT
from jtplugins.formats.kohya import Kohya
from jtplugins.formats.motiondirector import SPATIAL as SPATIAL_FILE
from jtplugins.formats.motiondirector import TEMPORAL as TEMPORAL_FILE

FORMATS = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
PLAIN = {"kind": "lora", "targets": "visual", "rank": 3, "alpha": 2.0}
SIZE = {"height": 32, "width": 48, "num_inference_steps": 1, "output_type": "latent"}


@frozen(eq=False)
class Stock:
    """A tiny checkpoint, diffusers' own pipeline of it, and how to call that"""

    kind: str
    folder: Path
    pipeline: type
    options: Mapping[str, Any]

    @property
    def backbone(self) -> dict[str, str]:
        return {"kind": self.kind, "weights": str(self.folder)}

    def load(self) -> DiffusionPipeline:
        """One with a denoiser of its own."""
        return own_pipeline(self.pipeline, self.folder)

    def sample(self, pipe: DiffusionPipeline) -> Tensor:
        rng = torch.Generator().manual_seed(3)
        return pipe("a dog", generator=rng, **SIZE, **self.options).frames


@pytest.fixture(scope="module")
def cogvideox(tmp_path_factory) -> Stock:
    folder = build(tmp_path_factory.mktemp("cogvideox"), "5b")
    options = {"max_sequence_length": LENGTH, "num_frames": 9}
    return Stock("cogvideox", folder, CogVideoXPipeline, options)


@pytest.fixture(scope="module")
def wan(tmp_path_factory) -> Stock:
    folder = build_wan(tmp_path_factory.mktemp("wan"))
    return Stock("wan", folder, WanPipeline, {"num_frames": 5})


@pytest.fixture(scope="module")
def zeroscope(tmp_path_factory) -> Stock:
    folder = build_zeroscope(tmp_path_factory.mktemp("zeroscope"))
    return Stock("zeroscope", folder, TextToVideoSDPipeline, {"num_frames": 2})


def assert_same(found: Tensor, expected: Tensor, bare: Tensor) -> None:
    """As near as another order of the same sums comes, beside what adapters change of `bare`."""
    change = (expected - bare).norm()
    assert change > 1e-3 * bare.norm()
    assert (found - expected).norm() < 1e-3 * change


def metadata(path: Path) -> dict[str, str] | None:
    with safe_open(path, "pt") as file:
        return file.metadata()


def snippets(title: str) -> list[str]:
    """The Python of a section of docs/formats.md."""
    return re.findall(r"```python\n(.*?)```", section(title), re.DOTALL)


def section(title: str) -> str:
    return FORMATS.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(title: str) -> list[list[str]]:
    """The arguments of the commands of a section, with sizes and steps for tiny checkpoints."""
    (block,) = re.findall(r"```shell\n(.*?)```", section(title), re.DOTALL)
    block = block.replace("\\\n", " ").replace("480 720", "32 48").replace("384 384", "32 48")
    block = block.replace("--frames 49", "--steps 1 --frames 9").replace(
        "--frames 16", "--frames 2"
    )
    return [shlex.split(line) for line in block.splitlines()]


def run(command: list[str]) -> None:
    name, *arguments = command
    assert {"jt-convert": cli.convert, "jt-sample": cli.sample}[name](arguments) == 0


# our own files, and the commands, as documented


@pytest.mark.parametrize(
    "adapter",
    [
        {**PLAIN, "kind": "glora", "alpha": None},
        {**PLAIN, "kind": "glora", "alpha": None, "gate_over": "batch"},
        PLAIN,
        {**PLAIN, "alpha": None},
    ],
    ids=["sample gate", "batch gate", "lora", "lora without alpha"],
)
def test_an_adapter_in_plain_torch_is_as_documented(cogvideox, tmp_path, adapter):
    adapter = {key: value for key, value in adapter.items() if value is not None}
    file = write_adapter(tmp_path / "joint.safetensors", cogvideox.backbone, adapter)
    found: dict[str, Any] = {}
    (code,) = snippets("Our own files")
    exec(code.replace("joint.safetensors", str(file)), found)
    pipe = cogvideox.load()
    x, layer = torch.randn(2, 5, 32), "transformer_blocks.1.attn1.to_v"
    linear = pipe.transformer.get_submodule(layer)
    bare = linear(x)

    jtcore.load_adapters(pipe, file, scale=0.7)
    heard = []
    pipe.transformer.proj_out.register_forward_pre_hook(lambda *_: heard.append(linear(x)))
    cogvideox.sample(pipe)

    torch.testing.assert_close(heard[0] - bare, found["update"](layer, x, 0.7))


def test_loading_into_a_pipeline_is_as_documented(cogvideox, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter = {**PLAIN, "kind": "glora"}
    adapter.pop("alpha")
    Path("runs/identity-001/adapters").mkdir(parents=True)
    for place in ("joint", "motion", "runs/identity-001/adapters/look"):
        write_adapter(Path(f"{place}.safetensors"), cogvideox.backbone, adapter)
    pipe = cogvideox.load()
    bare = cogvideox.sample(pipe)

    (code,) = snippets("On a stock diffusers pipeline")
    names = {"pipe": pipe, "options": {**SIZE, **cogvideox.options}}
    exec(code.replace('flute")', 'flute", **options)'), names)

    assert names["adapters"].scales == {"joint": 0.5}
    assert names["both"].scales == {"identity": 1.0, "motion": 1.0}
    names["both"].remove()
    assert torch.equal(cogvideox.sample(pipe), bare)


def test_the_documented_exports_run(cogvideox, tmp_path, monkeypatch):
    pytest.importorskip("peft", reason="diffusers loads LoRA through it")
    monkeypatch.chdir(tmp_path)
    write_adapter(Path("joint.safetensors"), cogvideox.backbone, PLAIN)
    for title in ("Plain LoRA for diffusers", "Plain LoRA for ComfyUI and kohya's tools"):
        for command in commands(title):
            run(command)
    assert {path.name for path in tmp_path.iterdir()} == {
        "joint.safetensors",
        "joint-diffusers.safetensors",
        "joint-kohya.safetensors",
    }


def test_the_documented_imports_run(cogvideox, zeroscope, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/CogVideoX-5b").symlink_to(cogvideox.folder)
    Path("models/zeroscope_v2_576w").symlink_to(zeroscope.folder)
    torch.save(wrap(cogvideox.load().transformer, COGVIDEOX), "1000_transformer.pt")
    for part in ("temporal", "spatial"):
        Path(part, "lora").mkdir(parents=True)
    torch.save(wrap(build_unet(), TEMPORAL, gated=False), "temporal/lora/150_unet.pt")
    pair = [wrap(build_unet(), SPATIAL, gated=False) for _ in range(2)]
    both = [one for at in range(0, 48, 2) for lora in pair for one in lora[at : at + 2]]
    torch.save(both, "spatial/lora/150_unet.pt")

    for command in [*commands("JointTuner's released files"), *commands("MotionDirector's files")]:
        run(command)

    videos = sorted(path.parent.parent.name for path in tmp_path.rglob("*.mp4"))
    assert videos == ["motion", "videos"]


# out: plain LoRA for diffusers


@pytest.fixture(params=["cogvideox", "wan"])
def loadable(request) -> Stock:
    pytest.importorskip("peft", reason="diffusers loads LoRA through it")
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("stripped", [False, True], ids=["whole", "without metadata"])
def test_a_stock_pipeline_loads_the_lora_and_samples_what_we_do(
    loadable, jt_convert, tmp_path, stripped
):
    ours = write_adapter(tmp_path / "joint.safetensors", loadable.backbone, PLAIN)
    theirs = jt_convert(ours, "--to", "diffusers")
    if stripped:
        save_file(load_file(theirs), theirs)
    with_ours, with_theirs = loadable.load(), loadable.load()
    bare = loadable.sample(with_ours)

    with_theirs.load_lora_weights(theirs)
    jtcore.load_adapters(with_ours, ours)

    assert_same(loadable.sample(with_theirs), loadable.sample(with_ours), bare)


def test_diffusers_names_and_scaling_are_in_the_file(cogvideox, jt_convert, tmp_path):
    pytest.importorskip("peft")
    ours = write_adapter(tmp_path / "joint.safetensors", cogvideox.backbone, PLAIN)
    source, written = load_file(ours), load_file(jt_convert(ours, "--to", "diffusers"))

    assert written.keys() == {
        f"transformer.{name.replace(old, new)}"
        for name in source
        for old, new in [("down", "lora_A"), ("up", "lora_B")]
        if old in name
    }
    name = "transformer_blocks.1.attn1.to_out.0"
    assert torch.equal(written[f"transformer.{name}.lora_A.weight"], source[f"{name}.down.weight"])
    scaled = 2 / 3 * source[f"{name}.up.weight"]
    torch.testing.assert_close(written[f"transformer.{name}.lora_B.weight"], scaled)


def test_layers_of_several_ranks_are_loaded_at_scale_one(cogvideox, tmp_path):
    pytest.importorskip("peft")
    updates = draw_updates({"attn1.to_q": 2, "attn1.to_k": 5, "ff.net.2": 2}, cogvideox)
    network, path = denoiser(cogvideox.load()), tmp_path / "lora.safetensors"
    bare = deepcopy(network)

    DiffusersLoRA().write(updates, network, path)
    assert DiffusersLoRA().load(path, network) == "CogVideoXPipeline.load_lora_weights"

    assert_added(updates, network, bare)


def assert_added(
    updates: Mapping[str, tuple[Tensor, Tensor]], network: nn.Module, bare: nn.Module
) -> None:
    """What `network` has beside `bare` are the `updates`, by layer, at scale one."""
    for name, (down, up) in updates.items():
        linear = bare.get_submodule(name)
        x = torch.randn(1, 5, linear.in_features)
        expected = linear(x) + x @ down.T @ up.T
        torch.testing.assert_close(network.get_submodule(name)(x), expected)


def draw_updates(ranks: dict[str, int], stock: Stock) -> dict[str, tuple[Tensor, Tensor]]:
    """`down` and `up` of layers of the first block."""
    layers = {f"transformer_blocks.0.{name}": rank for name, rank in ranks.items()}
    linears = {name: denoiser(stock.load()).get_submodule(name) for name in layers}
    return {
        name: (torch.randn(rank, one.in_features), torch.randn(one.out_features, rank))
        for (name, rank), one in zip(layers.items(), linears.values(), strict=True)
    }


def test_peft_loads_the_lora_into_a_unet_as_documented(zeroscope, jt_convert, tmp_path, capsys):
    pytest.importorskip("peft")
    ours = write_adapter(tmp_path / "joint.safetensors", zeroscope.backbone, PLAIN)
    theirs = jt_convert(ours, "--to", "diffusers")
    assert capsys.readouterr().out == (
        f"{theirs}: LoRA of 74 layers, read again by peft, as stock diffusers has no LoRA loader"
        " for UNet3DConditionModel; see docs/formats.md\n"
    )
    with_ours, pipe = zeroscope.load(), zeroscope.load()
    bare = zeroscope.sample(pipe)

    (code,) = snippets("Plain LoRA for diffusers")
    exec(code.replace("joint-diffusers.safetensors", str(theirs)), {"pipe": pipe})
    jtcore.load_adapters(with_ours, ours)

    assert_same(zeroscope.sample(pipe), zeroscope.sample(with_ours), bare)


# out: plain LoRA for ComfyUI and kohya's tools


@pytest.mark.parametrize("name", ["cogvideox", "zeroscope"])
def test_weights_merged_by_kohyas_keys_sample_what_we_do(request, jt_convert, tmp_path, name):
    stock = request.getfixturevalue(name)
    ours = write_adapter(tmp_path / "joint.safetensors", stock.backbone, PLAIN)
    theirs = load_file(jt_convert(ours, "--to", "kohya"))
    with_ours, merged = stock.load(), stock.load()
    bare = stock.sample(merged)

    for path, linear in denoiser(merged).named_modules():
        key = f"lora_unet_{path.replace('.', '_')}"
        if f"{key}.alpha" in theirs:
            down, up = (theirs.pop(f"{key}.lora_{part}.weight") for part in ("down", "up"))
            linear.weight += theirs.pop(f"{key}.alpha") / len(down) * up @ down
    assert theirs == {}
    jtcore.load_adapters(with_ours, ours)

    assert_same(stock.sample(merged), stock.sample(with_ours), bare)


WANS = {  # diffusers' names, and those of Wan's own code
    "attn1.to_q": "self_attn_q",
    "attn1.to_k": "self_attn_k",
    "attn1.to_v": "self_attn_v",
    "attn1.to_out.0": "self_attn_o",
    "attn2.to_q": "cross_attn_q",
    "attn2.to_k": "cross_attn_k",
    "attn2.to_v": "cross_attn_v",
    "attn2.to_out.0": "cross_attn_o",
    "ffn.net.0.proj": "ffn_0",
    "ffn.net.2": "ffn_2",
}


def test_the_modules_of_wan_have_the_names_of_its_own_code(wan, jt_convert, tmp_path, capsys):
    ours = write_adapter(tmp_path / "joint.safetensors", wan.backbone, PLAIN)
    theirs = jt_convert(ours, "--to", "kohya")
    assert capsys.readouterr().out == (
        f"{theirs}: LoRA of 12 layers, read again by ComfyUI's rule of names; diffusers reads this"
        " layout where every layer of Wan's blocks has a LoRA alone, and --to diffusers in any"
        " case\n"
    )
    source, written = load_file(ours), load_file(theirs)
    for block in (0, 1):
        for layer, own in WANS.items():
            if layer.startswith("attn2"):  # which "visual" leaves alone
                continue
            name, key = f"blocks.{block}.{layer}", f"lora_unet_blocks_{block}_{own}"
            scale = written.pop(f"{key}.alpha") / 3
            down, up = (written.pop(f"{key}.lora_{part}.weight") for part in ("down", "up"))
            expected = 2 / 3 * source[f"{name}.up.weight"] @ source[f"{name}.down.weight"]
            torch.testing.assert_close(scale * up @ down, expected)
    assert written == {}


def test_diffusers_reads_kohyas_layout_of_all_of_wan(wan, tmp_path):
    pytest.importorskip("peft")
    network, path = denoiser(wan.load()), tmp_path / "lora.safetensors"
    bare = deepcopy(network)
    updates = {}
    for block in (0, 1):
        for layer in WANS:
            linear = network.get_submodule(f"blocks.{block}.{layer}")
            down, up = torch.randn(2, linear.in_features), torch.randn(linear.out_features, 2)
            updates[f"blocks.{block}.{layer}"] = (down, up)

    Kohya().write(updates, network, path)
    assert Kohya().load(path, network) == "WanPipeline.load_lora_weights"

    assert_added(updates, network, bare)


def test_a_module_of_wan_without_a_name_in_kohyas_layout_is_told(wan, capsys, tmp_path):
    outside = {**PLAIN, "targets": "condition_embedder.time_embedder.linear_*"}
    ours = write_adapter(tmp_path / "joint.safetensors", wan.backbone, outside)
    out = tmp_path / "out.safetensors"

    assert cli.convert([str(ours), "--to", "kohya", "--out", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"{ours}: the layout has names for Wan's blocks alone, not for"
        " 'condition_embedder.time_embedder.linear_1'\n"
    )
    assert not out.exists()


# in: the lists of released code. Order and formula are written out here, from its description.

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
SELF, OTHER = ([f"{which}.{one}" for one in ATTENTION] for which in ("attn1", "attn2"))
FORWARD = ["ff.net.0.proj", "ff.net.2"]
STAGES = ("down_blocks.0.{}.0", "up_blocks.1.{}.0", "up_blocks.1.{}.1", "mid_block.{}.0")
SPATIAL = [
    f"{stage.format('attentions')}.transformer_blocks.0.{layer}"
    for stage in STAGES
    for layer in SELF + FORWARD
]
TEMPORAL = [
    f"{stage.format('temp_attentions')}.transformer_blocks.0.{layer}"
    for stage in ("transformer_in", *STAGES)
    for layer in SELF + OTHER + FORWARD
]
COGVIDEOX = [f"transformer_blocks.{block}.{layer}" for block in (0, 1) for layer in SELF + FORWARD]


class Wrapped(nn.Module):
    """The released wrapper of a linear: W x + b + mean(sigmoid(w . x)) * up down x"""

    def __init__(self, linear: nn.Linear, rank: int, gated: bool):
        super().__init__()
        wide, narrow = linear.out_features, linear.in_features
        self.linear = linear
        self.up, self.down = 0.3 * torch.randn(wide, rank), 0.3 * torch.randn(rank, narrow)
        self.gate = torch.randn(1, narrow) if gated else None

    def forward(self, x: Tensor) -> Tensor:  # (N, T, in) -> (N, T, out)
        update = x @ self.down.T @ self.up.T
        if self.gate is None:
            return self.linear(x) + update
        gate = 1 / (1 + torch.exp(-(x @ self.gate.T)))  # (N, T, 1)
        return self.linear(x) + update * gate.mean(0).mean(0)


def wrap(network: nn.Module, names: Sequence[str], gated: bool = True) -> list[Tensor]:
    """Wrap linears in place, and return the list that the released code saves."""
    saved = []
    for name in names:
        parent, _, child = name.rpartition(".")
        wrapped = Wrapped(network.get_submodule(name), 2, gated)
        setattr(network.get_submodule(parent), child, wrapped)
        saved += [wrapped.up, wrapped.down, *([wrapped.gate] if gated else [])]
    return saved


@pytest.mark.parametrize(
    ("name", "order"), [("cogvideox", COGVIDEOX), ("zeroscope", SPATIAL + TEMPORAL)]
)
@pytest.mark.parametrize(
    "stored",
    [nn.Parameter, Tensor.bfloat16, Tensor.double],
    ids=["parameters", "bfloat16", "float64"],
)
def test_jointtuners_list_becomes_the_adapter_it_was(
    request, jt_convert, tmp_path, name, order, stored
):
    torch.manual_seed(0)
    stock, released = request.getfixturevalue(name), tmp_path / "1000_transformer.pt"
    wrapped, pipe = stock.load(), stock.load()
    bare = stock.sample(pipe)
    saved = wrap(denoiser(wrapped), order)
    torch.save([stored(one) for one in saved], released)
    if stored is Tensor.bfloat16:
        for one in saved:
            one.copy_(one.bfloat16())

    ours = jt_convert(released, *f"--from jointtuner --backbone {name}".split(), *weights(stock))
    jtcore.load_adapters(pipe, ours)

    assert_same(stock.sample(pipe), stock.sample(wrapped), bare)


def weights(stock: Stock) -> tuple[str, str]:
    return "--set", f"backbone.weights={stock.folder}"


def test_what_is_imported_needs_no_weights_of_its_backbone(cogvideox, jt_convert, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(cogvideox.folder, bare, ignore=shutil.ignore_patterns("*.safetensors*"))
    released = tmp_path / "1000_transformer.pt"
    torch.save(wrap(cogvideox.load().transformer, COGVIDEOX), released)

    where = ("--set", f"backbone.weights={bare}")
    ours = jt_convert(released, "--from", "jointtuner", "--backbone", "cogvideox", *where)
    assert json.loads(metadata(ours)["jtcore-adapter-1"])["identity"] == {}


@pytest.mark.parametrize("order", [SPATIAL, TEMPORAL], ids=["spatial", "temporal"])
def test_motiondirectors_lists_become_the_adapters_they_were(
    zeroscope, jt_convert, tmp_path, order
):
    torch.manual_seed(0)
    released = tmp_path / "150_unet.pt"
    wrapped, pipe = zeroscope.load(), zeroscope.load()
    bare = zeroscope.sample(pipe)
    torch.save([nn.Parameter(one) for one in wrap(wrapped.unet, order, gated=False)], released)

    options = ["--from", "motiondirector", "--backbone", "zeroscope"]
    jtcore.load_adapters(pipe, jt_convert(released, *options, *weights(zeroscope)))

    assert_same(zeroscope.sample(pipe), zeroscope.sample(wrapped), bare)


@pytest.mark.parametrize("video", [0, 1, 2])
def test_the_spatial_lora_of_one_video_is_taken_out_of_all(zeroscope, jt_convert, tmp_path, video):
    """The wrappers of later videos are nested in those of the first."""
    torch.manual_seed(0)
    released = tmp_path / "150_unet.pt"
    each = [wrap(build_unet(), SPATIAL, gated=False) for _ in range(3)]
    pairs = range(0, len(each[0]), 2)
    torch.save([one for at in pairs for lora in each for one in lora[at : at + 2]], released)

    options = ["--from", "motiondirector", "--backbone", "zeroscope"]
    options += ["--set", f"format.video={video}"]
    ours = load_file(jt_convert(released, *options, *weights(zeroscope)))

    for at, name in zip(pairs, SPATIAL, strict=True):
        assert torch.equal(ours.pop(f"{name}.up.weight"), each[video][at])
        assert torch.equal(ours.pop(f"{name}.down.weight"), each[video][at + 1])
    assert ours == {}


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        (CogVideoX("random", config="2b"), {JOINT: 180, SPATIAL_FILE: 0, TEMPORAL_FILE: 0}),
        (CogVideoX("random", config="5b"), {JOINT: 252, SPATIAL_FILE: 0, TEMPORAL_FILE: 0}),
        (ZeroScope("random", width=32), {JOINT: 266, SPATIAL_FILE: 96, TEMPORAL_FILE: 170}),
    ],
    ids=["2b", "5b", "zeroscope"],
)
def test_networks_of_published_depth_have_as_many_layers_as_released_files(backbone, layers):
    network = backbone.load(torch.device("meta"), torch.float32).denoiser
    assert {layout: len(layout.names(network)) for layout in layers} == layers


def test_an_imported_adapter_says_how_it_was_trained(cogvideox, jt_convert, tmp_path):
    released = tmp_path / "1000_transformer.pt"
    torch.save(wrap(cogvideox.load().transformer, COGVIDEOX), released)

    options = [*["--from", "jointtuner", "--backbone", "cogvideox"], *weights(cogvideox)]
    options += ["--set", "engine.precision=bf16"]
    ours = jt_convert(released, *options, name="bear")

    facts = json.loads(metadata(ours)["jtcore-adapter-1"])
    assert facts["name"] == "bear"
    assert facts["adapter"] == {
        "kind": "glora",
        "targets": "visual",
        "rank": 2,
        "gate_over": "batch",
        "gate_init": "normal",
        "dropout": 0.0,
    }
    assert facts["backbone"]["weights"] == str(cogvideox.folder)
    assert (facts["engine"]["precision"], facts.get("sample")) == ("bf16", None)


# in: what does not fit


@pytest.fixture
def refused(tmp_path, capsys, zeroscope) -> Callable[..., str]:
    """What is said of a released file that cannot be read; nothing is written."""

    def refuse(held: Any, *options: str, stock: Stock = zeroscope) -> str:
        released, out = tmp_path / "released.pt", tmp_path / "out.safetensors"
        torch.save(held, released)
        given = [str(released), *options, "--backbone", stock.kind, *weights(stock)]
        capsys.readouterr()
        assert cli.convert([*given, "--out", str(out)]) == 2
        assert not out.exists()
        said = capsys.readouterr().err
        assert said.startswith(f"{released}: ") and said.count("\n") == 1
        return said.removeprefix(f"{released}: ").rstrip("\n")

    return refuse


JOINTTUNER = ("--from", "jointtuner")
MOTIONDIRECTOR = ("--from", "motiondirector")


def test_a_list_of_another_length_is_told_with_both_numbers(refused, cogvideox):
    saved = wrap(cogvideox.load().transformer, COGVIDEOX)
    assert refused(saved[:-3], *JOINTTUNER, stock=cogvideox) == (
        "has 33 tensors, but CogVideoXTransformer3DModel takes 36, 3 for each of 12 linear layers;"
        " is it of another backbone or size?"
    )
    assert refused(saved, *MOTIONDIRECTOR) == (
        "has 36 tensors; of UNet3DConditionModel a temporal file has 100, and a spatial one 48 for"
        " each video; is it of another backbone or size?"
    )


def test_shapes_that_do_not_fit_are_told(refused):
    saved = wrap(build_unet(), SPATIAL + TEMPORAL)
    saved[3], saved[6] = saved[3][:-1], saved[6][:, :1]
    assert refused(saved, *JOINTTUNER) == (
        "tensor 3 has the shape (7, 2), but 'up' of"
        " down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k at rank 2 has (8, 2);"
        " is it of another backbone or size? (and 1 more)"
    )


def test_a_file_without_gates_is_no_jointtuner(refused):
    saved = wrap(build_unet(), SPATIAL + TEMPORAL, gated=False)
    assert refused(saved, *JOINTTUNER).startswith(
        "has 148 tensors, but UNet3DConditionModel takes 222, 3 for each of 74 linear layers;"
    )


@pytest.mark.parametrize("options", [(), ("--set", "format.video=2")])
def test_several_videos_need_one_to_be_named(refused, options):
    each = [wrap(build_unet(), SPATIAL, gated=False) for _ in range(2)]
    assert refused([*each[0], *each[1]], *MOTIONDIRECTOR, *options) == (
        "has spatial LoRAs of 2 videos; take one with --set format.video=N, N from 0 to 1"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            JOINTTUNER,
            "JointTuner was released for CogVideoX, ZeroScope and ModelScope, and"
            " WanTransformer3DModel has none of their blocks",
        ),
        (
            MOTIONDIRECTOR,
            "MotionDirector was released for ZeroScope and ModelScope, and WanTransformer3DModel"
            " has none of their blocks",
        ),
    ],
)
def test_a_backbone_that_it_was_not_released_for_is_told(refused, wan, options, said):
    assert refused([torch.zeros(2, 2)], *options, stock=wan) == said


class Sly:
    """Runs code where it is unpickled"""

    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"a": torch.zeros(1, 1)}, "expected a list of tensors, found dict"),
        ([], "expected a list of tensors, found list"),
        ([torch.zeros(1, 1), 3], "item 1 of its list is of type int, not a matrix"),
        (
            [torch.zeros(3)],
            "item 0 of its list is a tensor of torch.float32 and shape (3,), not a matrix",
        ),
        (
            [torch.zeros(1, 1, dtype=torch.int64)],
            "item 0 of its list is a tensor of torch.int64 and shape (1, 1), not a matrix",
        ),
    ],
    ids=["dict", "empty", "number", "vector", "integers"],
)
def test_what_is_no_list_of_matrices_is_told(refused, held, said):
    assert refused(held, *JOINTTUNER) == said


def test_code_in_a_file_is_not_run(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused([Sly()], *JOINTTUNER)
    assert said.startswith("cannot be read as a list of tensors alone: Weights only load failed")
    assert not Path("touched").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04torn", b"no pickle at all"])
def test_a_damaged_file_is_told(zeroscope, capsys, tmp_path, content):
    released = tmp_path / "released.pt"
    released.write_bytes(content)
    given = [str(released), *JOINTTUNER, "--backbone", "zeroscope", *weights(zeroscope)]
    assert cli.convert([*given, "--out", str(tmp_path / "out.safetensors")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{released}: cannot be read as a list of tensors alone: ")
    assert said.count("\n") == 1
