"""A tiny Wan 2.1 in the layout of the hub: shards with an index, UMT5, a causal VAE, a flow."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import UMT5Config, UMT5EncoderModel

from .tokenizers import ENCODER, build_t5_tokenizer


def build_wan(folder: Path, seed: int = 0, flow_shift: float = 3.0) -> Path:
    """Write a text-to-video pipeline of 0.1 M parameters with random weights; return `folder`."""
    tokenizer = build_t5_tokenizer(length=512)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = WanPipeline(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(len(tokenizer)),
            vae=AutoencoderKLWan(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval(),
            transformer=_transformer(),
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift
            ),
        )
    pipeline.save_pretrained(folder, max_shard_size="40KB")
    return folder


def _text_encoder(words: int) -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=words,
        **ENCODER,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config).eval()


def _transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=64,
    )
