"""Tiny networks that metrics look through, in the layouts that their authors have on the hub."""

import json
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

from checkpoints.tokenizers import build_clip_tokenizer

SIDE = 32  # px, of the squares that the networks see
CLIP_NUMBERS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
IMAGENET_NUMBERS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
LAYERS = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "initializer_range": 0.3,  # or every picture would be the same to it
}


def build_clip(folder: Path, seed: int = 0, pickled: bool = False, tokens: int = 77) -> Path:
    """As openai/clip-vit-base-patch32: that one has its weights as a pickle alone."""
    tokenizer = build_clip_tokenizer(length=tokens)
    text = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokens,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.3,
    }
    config = CLIPConfig(
        text_config=text,
        vision_config={**LAYERS, "patch_size": 8},
        projection_dim=12,
        logit_scale_init_value=3.0,
    )
    _write(CLIPModel, config, folder, seed, pickled)
    tokenizer.save_pretrained(folder)
    _prepared(folder, "CLIPFeatureExtractor", CLIP_NUMBERS, size=SIDE, crop_size=SIDE, resample=3)
    return folder


def build_dino(folder: Path, seed: int = 0) -> Path:
    """As facebook/dino-vits16: pictures are squeezed to squares."""
    config = ViTConfig(**LAYERS, patch_size=8, qkv_bias=True)
    _write(ViTModel, config, folder, seed, add_pooling_layer=False)
    _prepared(folder, "ViTFeatureExtractor", IMAGENET_NUMBERS, size=SIDE, resample=2)
    return folder


def build_dinov2(folder: Path, seed: int = 0) -> Path:
    """As facebook/dinov2-small: the centre of a larger picture is cut out."""
    sizes = {key: value for key, value in LAYERS.items() if key != "intermediate_size"}
    config = Dinov2Config(**sizes | {"image_size": 42}, mlp_ratio=2, patch_size=7)
    _write(Dinov2Model, config, folder, seed)
    edges = {"size": {"shortest_edge": 36}, "crop_size": {"height": 28, "width": 28}}
    _prepared(folder, "BitImageProcessor", IMAGENET_NUMBERS, **edges, resample=3)
    return folder


def build_head(path: Path, width: int = 12) -> Path:
    """As LAION's sa_0_4_vit_l_14_linear.pth."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(1, width, generator=rng)
    torch.save({"weight": weight, "bias": torch.tensor([5.0])}, path)
    return path


def _write(
    kind: type[PreTrainedModel],
    config: object,
    folder: Path,
    seed: int,
    pickled: bool = False,
    **options: object,
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(config, **options)
        for parameter in network.parameters():  # norms, biases and positions are drawn as well
            if parameter.ndim:
                parameter.data += 0.05 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(network.state_dict(), folder / "pytorch_model.bin")


def _prepared(folder: Path, kind: str, numbers: dict, crop_size: object = None, **more) -> None:
    """What the hub's repositories say of it, in the words of their years."""
    name = "image_processor_type" if kind.endswith("Processor") else "feature_extractor_type"
    told = {name: kind, "do_normalize": True, "do_resize": True, **numbers, **more}
    if crop_size:
        told |= {"do_center_crop": True, "crop_size": crop_size}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
