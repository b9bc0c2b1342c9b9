"""Plain LoRA in other tools' layouts, against those tools."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from checkpoints.adapters import PLAIN, write_adapter
from checkpoints.stock import Stock, assert_same, denoiser
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import jtcore
from jtcore import cli
from jtplugins.formats.diffusers_lora import DiffusersLoRA
from jtplugins.formats.kohya import Kohya


def metadata(path: Path) -> dict[str, str] | None:
    with safe_open(path, "pt") as file:
        return file.metadata()


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
