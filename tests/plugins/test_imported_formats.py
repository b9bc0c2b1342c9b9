"""Files of released code against its formulas in plain torch."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints.released import COGVIDEOX, SPATIAL, TEMPORAL, wrap
from checkpoints.stock import assert_same, denoiser, weights
from checkpoints.unet import build_unet
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import jtcore
from jtplugins.backbones.cogvideox import CogVideoX
from jtplugins.backbones.zeroscope import ZeroScope
from jtplugins.formats.jointtuner import LAYOUT as JOINT
from jtplugins.formats.motiondirector import SPATIAL as SPATIAL_FILE
from jtplugins.formats.motiondirector import TEMPORAL as TEMPORAL_FILE


def metadata(path: Path) -> dict[str, str] | None:
    with safe_open(path, "pt") as file:
        return file.metadata()


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
