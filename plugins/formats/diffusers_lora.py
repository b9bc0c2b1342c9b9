"""The layout of LoRA files that diffusers reads and writes."""

import json
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from jtcore import hookimpl

from ._stock import NAME, expect_layers, has_loader, load_into_pipeline, require_peft

METADATA = "lora_adapter_metadata"  # diffusers' key
PLACES = {"UNet3DConditionModel": "unet"}  # in a pipeline; other denoisers are its "transformer"


@frozen
class DiffusersLoRA:
    """Writes plain LoRA for `pipe.load_lora_weights` of stock diffusers

    CogVideoX and Wan pipelines load it so, and so does ComfyUI-CogVideoXWrapper. Stock diffusers
    has no LoRA loader for the UNet of ZeroScope and ModelScope, into which peft can load it.
    Scaling is in `lora_B`, so that readers that know no alpha are right as well.
    """

    def write(
        self, updates: Mapping[str, tuple[Tensor, Tensor]], denoiser: nn.Module, path: Path
    ) -> None:
        place = _place(denoiser)
        tensors = {}
        for name, (down, up) in updates.items():
            tensors[f"{place}.{name}.lora_A.weight"] = down
            tensors[f"{place}.{name}.lora_B.weight"] = up
        ranks = {name: len(down) for name, (down, _) in updates.items()}
        rank = next(iter(ranks.values()))
        others = {f"^{name}": own for name, own in ranks.items() if own != rank}
        config = {
            "r": rank,
            "lora_alpha": rank,
            "target_modules": sorted(updates),
            "rank_pattern": others,
            "alpha_pattern": others,
        }
        prefixed = {f"{place}.{key}": value for key, value in config.items()}
        # one key: safetensors writes several in random order, and equal runs end in equal bytes
        save_file(tensors, path, {METADATA: json.dumps(prefixed)})

    def load(self, path: Path, denoiser: nn.Module) -> str:
        if has_loader(denoiser):
            reader = load_into_pipeline(path, denoiser)
        else:
            _inject(path, denoiser)
            cls = type(denoiser).__name__
            reader = f"peft, as stock diffusers has no LoRA loader for {cls}; see docs/formats.md"
        start = len(f"{_place(denoiser)}.")
        with safe_open(path, "pt") as file:
            names = {name[start:].rpartition(".lora_")[0] for name in file.keys()}  # noqa: SIM118 - not a dict
        expect_layers(names, denoiser)
        return reader


def _place(denoiser: nn.Module) -> str:
    return PLACES.get(type(denoiser).__name__, "transformer")


def _inject(path: Path, denoiser: nn.Module) -> None:
    """What diffusers' loaders do, for a denoiser that has none."""
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    place = f"{_place(denoiser)}."
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()[METADATA])
        weights = {name.removeprefix(place): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    options = {key.removeprefix(place): value for key, value in config.items()}
    inject_adapter_in_model(LoraConfig(**options), denoiser, NAME)
    set_peft_model_state_dict(denoiser, weights, NAME)


@hookimpl
def jt_formats() -> dict[str, type]:
    return {"diffusers": DiffusersLoRA}
