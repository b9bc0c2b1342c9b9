"""Our own adapter files, and the commands, are as docs/formats.md has them."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.adapters import PLAIN, write_adapter
from checkpoints.released import COGVIDEOX, SPATIAL, TEMPORAL, wrap
from checkpoints.stock import SIZE, assert_same
from checkpoints.unet import build_unet

import jtcore
from jtcore import cli

FORMATS = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


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
