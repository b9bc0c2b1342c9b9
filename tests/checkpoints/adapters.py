"""Adapter files as training would leave them, with weights that are drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from jtcore.artifact import save_adapter
from jtcore.model import attach_adapters
from jtcore.plugins import load_plugins
from jtcore.recipe import Recipe
from jtcore.structure import structure_component

STRENGTH = 0.3  # of the drawn weights: enough to show, not enough to overflow
PLAIN = {"kind": "lora", "targets": "visual", "rank": 3, "alpha": 2.0}


def write_adapter(
    path: Path,
    backbone: dict[str, Any],
    adapter: dict[str, Any],
    seed: int = 7,
    folders: Sequence[Path] = (),
) -> Path:
    """An adapter of a backbone, each a table with its kind, named as its file; return `path`."""
    plugins, name = load_plugins(folders), path.stem
    component = structure_component("adapters", adapter, plugins)
    recipe = Recipe(structure_component("backbones", backbone, plugins), adapter={name: component})
    loaded = recipe.backbone.spec.load(torch.device("cpu"), torch.float32)
    attached = attach_adapters(recipe.adapter, loaded, seed)[name]
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in attached.parameters():
            weight.copy_(STRENGTH * torch.randn(weight.shape, generator=rng))
    save_adapter(path, name, recipe, attached)
    return path


def metadata(file: Path) -> dict[str, str]:
    """What stands in the head of an adapter file."""
    with safe_open(file, "pt") as opened:
        return opened.metadata()
