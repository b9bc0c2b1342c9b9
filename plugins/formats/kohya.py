"""The layout of LoRA files that kohya's trainers write and ComfyUI reads."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from attrs import frozen
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import linear

from jtcore import JtError, hookimpl

from ._stock import expect_layers, load_into_pipeline

PREFIX = "lora_unet_"  # whatever the denoiser is
DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"
WAN = MappingProxyType(  # diffusers' names -> those of Wan's own code, which these tools have
    {
        r"attn1\.to_([qkv])": r"self_attn.\2",
        r"attn1\.to_out\.0": "self_attn.o",
        r"attn2\.to_([qkv])": r"cross_attn.\2",
        r"attn2\.to_out\.0": "cross_attn.o",
        r"ffn\.net\.0\.proj": "ffn.0",
        r"ffn\.net\.2": "ffn.2",
    }
)
NOT_DIFFUSERS = (
    "; diffusers reads this layout where every layer of Wan's blocks has a LoRA alone, and"
    " --to diffusers in any case"
)


@frozen
class Kohya:
    """Writes plain LoRA in the layout of kohya's trainers, which ComfyUI reads

    `lora_unet_PATH.lora_down.weight`, `.lora_up.weight` and `.alpha`, the module's path with
    underscores for dots. Wan's modules have the names of Wan's own code, as in ComfyUI and
    musubi-tuner; those of other backbones, diffusers' names.
    """

    def write(
        self, updates: Mapping[str, tuple[Tensor, Tensor]], denoiser: nn.Module, path: Path
    ) -> None:
        keys = _keys(denoiser)
        if nameless := sorted(updates.keys() - keys):
            raise JtError(f"the layout has names for Wan's blocks alone, not for {nameless[0]!r}")
        tensors = {}
        for name, (down, up) in updates.items():
            tensors[keys[name] + DOWN] = down
            tensors[keys[name] + UP] = up
            tensors[keys[name] + ALPHA] = torch.tensor(float(len(down)))  # scaling is in `up`
        save_file(tensors, path)

    def load(self, path: Path, denoiser: nn.Module) -> str:
        parsed = parse(path, denoiser)
        if _is_wan(denoiser) and parsed.keys() == _keys(denoiser).keys():
            reader = load_into_pipeline(path, denoiser)
            expect_layers(parsed, denoiser)
            return reader
        for name, (down, up) in parsed.items():
            denoiser.get_submodule(name).register_forward_hook(partial(_add, down, up))
        return f"ComfyUI's rule of names{NOT_DIFFUSERS if _is_wan(denoiser) else ''}"


def parse(path: Path, denoiser: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """`down` and `up` by the name of the linear, found as ComfyUI finds it: every module's path is
    flattened, and looked up in the file. Raises JtError where a tensor is nobody's."""
    tensors = load_file(path)
    found = {}
    for name, key in _keys(denoiser).items():
        if key + UP in tensors:
            down, up, alpha = (tensors.pop(key + part) for part in (DOWN, UP, ALPHA))
            found[name] = (down, up * (alpha.item() / len(down)))
    if tensors:
        raise JtError(f"{len(tensors)} tensors belong to no module, the first {min(tensors)!r}")
    return found


def _keys(denoiser: nn.Module) -> dict[str, str]:
    """The keys of the linears that the layout has names for."""
    linears = [name for name, one in denoiser.named_modules() if isinstance(one, nn.Linear)]
    known = {name: _name_in_wan(name) for name in linears} if _is_wan(denoiser) else {}
    names = known or dict(zip(linears, linears, strict=True))
    return {n: PREFIX + own.replace(".", "_") for n, own in names.items() if own is not None}


def _is_wan(denoiser: nn.Module) -> bool:
    return type(denoiser).__name__ == "WanTransformer3DModel"


def _name_in_wan(name: str) -> str | None:
    """What Wan's own code calls a module of its blocks that diffusers calls `name`."""
    for old, new in WAN.items():
        if found := re.fullmatch(rf"blocks\.(\d+)\.{old}", name):
            return found.expand(rf"blocks.\1.{new}")
    return None


def _add(
    down: Tensor, up: Tensor, layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:  # (N, ..., out)
    return output + linear(linear(inputs[0], down), up)


@hookimpl
def jt_formats() -> dict[str, type]:
    return {"kohya": Kohya}
