"""Tiny ZeroScope and ModelScope checkpoints, in the layout that their hub repositories have."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
from diffusers.models.resnet import TemporalConvLayer
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .tokenizers import build_clip_tokenizer

WIDTH = 16  # of a text token
SIZE = 32  # px; frames are multiples of 16: the VAE halves three times, the UNet once


def build_zeroscope(folder: Path, bins: bool = False, seed: int = 0) -> Path:
    """A whole pipeline; with `bins`, everything is stored as ZeroScope's is, in 2023's way."""
    pipeline = build_pipeline(seed)
    pipeline.save_pretrained(folder)
    if bins:
        for part in ("unet", "vae", "text_encoder"):
            _store_as_bin(folder / part)
        _store_as_words_and_merges(folder / "tokenizer")
        _store_what_diffusers_once_knew(folder / "scheduler" / "scheduler_config.json")
    return folder


def build_pipeline(seed: int = 0) -> TextToVideoSDPipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_clip_tokenizer()
        networks = {
            "unet": build_unet(),
            "vae": build_vae(),
            "text_encoder": build_text_encoder(tokenizer),
        }
    networks = {name: network.eval() for name, network in networks.items()}
    return TextToVideoSDPipeline(**networks, tokenizer=tokenizer, scheduler=build_scheduler())


def build_unet() -> UNet3DConditionModel:
    """Two levels of one layer; temporal convolutions do something, as they do once trained."""
    unet = UNet3DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
    )
    for module in unet.modules():
        if isinstance(module, TemporalConvLayer):
            nn.init.normal_(module.conv4[-1].weight, std=0.2)
            nn.init.normal_(module.conv4[-1].bias, std=0.2)
    return unet


def build_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
        scaling_factor=0.18215,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_scheduler() -> DDIMScheduler:
    """As published."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _store_as_bin(folder: Path) -> None:
    """safetensors become a pickle of tensors in float16, named as they were when it was written."""
    (stored,) = folder.glob("*.safetensors")
    text = stored.name == "model.safetensors"
    prefix = "text_model." if text else ""
    weights = {f"{prefix}{name}": weight.half() for name, weight in load_file(stored).items()}
    if text:
        weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    name = "pytorch_model.bin" if text else "diffusion_pytorch_model.bin"
    torch.save(weights, folder / name)
    stored.unlink()


def _store_as_words_and_merges(folder: Path) -> None:
    """One file becomes the four that CLIP's tokenizer has on the hub, where "!" pads."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    _write(folder / "vocab.json", model["vocab"])
    merges = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    known = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    start, end = ({"content": f"<|{name}oftext|>", **known} for name in ("start", "end"))
    special = {"bos_token": start, "eos_token": end, "unk_token": end}
    _write(folder / "special_tokens_map.json", {**special, "pad_token": "!"})
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "pad_token": "<|endoftext|>",
            **{name: {"__type": "AddedToken", **token} for name, token in special.items()},
        },
    )


def _store_what_diffusers_once_knew(file: Path) -> None:
    """Options that came later are left out: their defaults differ from scheduler to scheduler."""
    config = json.loads(file.read_text())
    later = ("rescale_betas_zero_snr", "timestep_spacing")
    _write(file, {name: value for name, value in config.items() if name not in later})


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))
