"""Tiny checkpoints of CogVideoX, with all that the hub's have."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from transformers import T5Config, T5EncoderModel

from .tokenizers import ENCODER, build_t5_tokenizer

LENGTH = 48  # tokens
TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 8,
    "text_embed_dim": 32,
    "num_layers": 2,
    "sample_width": 6,
    "sample_height": 4,
    "sample_frames": 9,
    "max_text_seq_length": LENGTH,
}
FLAVOURS = {
    "2b": {"transformer": {}, "vae": {"scaling_factor": 1.15258426}, "snr_shift_scale": 3.0},
    "5b": {
        "transformer": {"use_rotary_positional_embeddings": True},
        "vae": {"scaling_factor": 0.7},
        "snr_shift_scale": 1.0,
    },
    "1.5": {
        "transformer": {
            "use_rotary_positional_embeddings": True,
            "patch_size_t": 2,
            "patch_bias": False,
            "sample_width": 12,
            "sample_height": 12,
        },
        "vae": {"scaling_factor": 0.7, "invert_scale_latents": True},
        "snr_shift_scale": 1.0,
    },
}


def build(folder: Path, flavour: str, seed: int = 0, **transformer: Any) -> Path:
    """Write a "2b", "5b" or "1.5" to a folder, with options of its `transformer`; 32x48 px, 9
    frames."""
    kind = FLAVOURS[flavour]
    tokenizer = build_t5_tokenizer(length=LENGTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = CogVideoXPipeline(
            tokenizer,
            _text_encoder(len(tokenizer)),
            _vae(**kind["vae"]),
            CogVideoXTransformer3DModel(**TRANSFORMER | kind["transformer"] | transformer).eval(),
            _scheduler(kind["snr_shift_scale"]),
        )
    pipeline.save_pretrained(folder, max_shard_size="40KB")
    return folder


def _text_encoder(vocabulary: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=vocabulary,
        **ENCODER,
    )
    return T5EncoderModel(config).eval()


def _vae(**options: Any) -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        block_out_channels=(8,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        sample_height=64,
        sample_width=96,
        **options,
    ).eval()


def _scheduler(shift: float) -> CogVideoXDDIMScheduler:
    return CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        timestep_spacing="trailing",
        snr_shift_scale=shift,
    )
