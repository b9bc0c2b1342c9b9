"""A tiny CLIP image encoder in the layout of the hub, of the width that ViT-H/14 has."""

from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection


def build_clip(folder: Path, seed: int = 0, width: int = 1024) -> Path:
    """Write it to `folder`, which is returned."""
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        projection_dim=width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CLIPVisionModelWithProjection(config)
    network.save_pretrained(folder)
    return folder
