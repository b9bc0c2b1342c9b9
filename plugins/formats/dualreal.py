"""What DualReal's released code saves."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

from attrs import field, frozen
from attrs.validators import in_
from torch import Tensor

from jtcore import JtError, hookimpl
from jtcore.types import Backbone, Imported

from ._released import load_released

Part = Literal["identity", "motion", "controller"]
PREFIXES = {"identity": "id", "motion": "motion"}
SITES = {"attn": "attn1", "ff": "ff"}
LAYERS = {"down_linear": "down", "up_linear": "up", "condition_linear": "condition"}
CONTROLLER = {
    "timestep_encoder.1": "modulation",
    "channel_encoder.0": "tokens",
    "norm": "norm",
    "fuse_proj": "widen",
    "fuse_proj_down": "narrow",
    "fusion_net.1": "hidden",
    "fusion_net.3": "head",
}


@frozen
class DualReal:
    """Reads DualReal's `adapter.pth`: identity and motion adapters and the controller, in one file

    For CogVideoX, by github.com/wenc-k/DualReal. Each `part` becomes an adapter of its own: two
    "dualreal" and a "stage_blender" between adapters that are named "identity" and "motion".
    """

    part: Part = field(default="identity", validator=in_(get_args(Part)))

    def read(self, path: Path, backbone: Backbone) -> Imported:
        if not _sites(backbone):
            raise JtError(
                "DualReal was released for CogVideoX, and"
                f" {type(backbone.denoiser).__name__} has none of its blocks"
            )
        held = _read(path)
        if self.part == "controller":
            return _controller(held, backbone)
        return _adapter(held, backbone, PREFIXES[self.part])


def _sites(backbone: Backbone) -> Mapping[str, int]:
    """Widths of CogVideoX's attentions and feed-forwards, by name; of others none."""
    if type(backbone.denoiser).__name__ != "CogVideoXTransformer3DModel":
        return {}
    return {name: site.width for name, site in backbone.sites("visual").items()}


def _adapter(held: Mapping[str, Tensor], backbone: Backbone, prefix: str) -> Imported:
    pattern = rf"(transformer_blocks\.\d+)\.{prefix}_(attn|ff)_adapter\.(\w+)\.(weight|bias)"
    tensors = {}
    for name, tensor in held.items():
        if match := re.fullmatch(pattern, name):
            block, site, layer, kind = match.groups()
            tensors[f"{block}.{SITES[site]}.{LAYERS.get(layer, layer)}.{kind}"] = tensor
    if not tensors:
        raise JtError(f"has no adapters named {prefix}_attn_adapter and {prefix}_ff_adapter")
    sites, some = _sites(backbone), next(iter(tensors)).rsplit(".", 2)[0]
    width = len(tensors.get(f"{some}.down.weight", ()))
    condition = tensors.get(f"{some}.condition.weight")
    reads = condition.shape[-1] if condition is not None else None
    wanted = {n: s for site, c in sites.items() for n, s in _shapes(site, c, width, reads)}
    _refuse_others(tensors, wanted, backbone)
    table = {"kind": "dualreal", "targets": "visual", "width": width}
    return Imported(table | ({"reference_width": reads} if reads else {}), tensors)


def _shapes(
    site: str, channels: int, width: int, reads: int | None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    layers = {"down": (width, channels), "up": (channels, width)}
    if reads:
        layers["condition"] = (channels, reads)
    for layer, (out, into) in layers.items():
        yield f"{site}.{layer}.weight", (out, into)
        yield f"{site}.{layer}.bias", (out,)


def _controller(held: Mapping[str, Tensor], backbone: Backbone) -> Imported:
    tensors = {}
    for name, tensor in held.items():
        layer, _, kind = name.removeprefix("controller.").rpartition(".")
        if name.startswith("controller."):
            tensors[f"{CONTROLLER.get(layer, layer)}.{kind}"] = tensor
    if not tensors:
        raise JtError("has no controller; it was trained without")
    entrance, groups = backbone.entrance(), len(tensors.get("head.bias", ()))
    time, hidden = entrance.time_width, entrance.time_width // 4
    layers = {
        "modulation": (3 * time, time),
        "tokens": (time, entrance.width),
        "norm": (time,),
        "widen": (4 * time, time),
        "narrow": (time, 4 * time),
        "hidden": (hidden, time),
        "head": (groups, hidden),
    }
    wanted = {f"{name}.weight": shape for name, shape in layers.items()}
    wanted |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
    _refuse_others(tensors, wanted, backbone)
    others = {name: {"kind": "dualreal"} for name in PREFIXES}
    return Imported({"kind": "stage_blender", "groups": groups}, tensors, others)


def _refuse_others(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], backbone: Backbone
) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    odd = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
    if odd:
        one = odd[0]
        raise JtError(
            f"{len(odd)} tensors do not fit {type(backbone.denoiser).__name__}, the first {one!r}:"
            f" expected {wanted.get(one, 'none')}, found {found.get(one, 'none')};"
            " is it of another backbone or size?"
        )


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors by name, in float32. Nothing that the file says is run."""
    held = load_released(path, "tensors")
    if not isinstance(held, dict) or not held:
        raise JtError(f"expected tensors by name, found {type(held).__name__}")
    odd = [name for name, item in held.items() if not isinstance(item, Tensor)]
    if odd:
        raise JtError(f"{odd[0]!r} is of type {type(held[odd[0]]).__name__}, not a tensor")
    return {str(name): item.detach().float() for name, item in held.items()}


@hookimpl
def jt_formats() -> dict[str, type]:
    return {"dualreal": DualReal}
