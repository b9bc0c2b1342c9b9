"""The networks of pocket, as real CogVideoX has them, and how they are stored and sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from attrs import frozen
from safetensors import SafetensorError
from torch import Generator, Tensor

from jtcore.errors import JtError

from .codec import BLOCK, CHANNELS, CURE, PatchCodec
from .text import LENGTH, WIDTH, build_text_encoder, build_tokenizer, embed
from .world import FRAMES, SIZE

if TYPE_CHECKING:
    from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

GRID = SIZE // BLOCK  # latent rows and columns
SHIPPED = Path(__file__).parent / "weights"
Part = TypeVar("Part")


@frozen
class Pocket:
    """All parts of the pipeline"""

    transformer: CogVideoXTransformer3DModel
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerFast
    scheduler: CogVideoXDDIMScheduler
    codec: PatchCodec

    def embed(self, prompts: Sequence[str]) -> Tensor:  # (B, L, D)
        """Raises JtError where a prompt is too long."""
        return embed(self.tokenizer, self.text_encoder, prompts)

    def predict(self, latents: Tensor, times: Tensor, text: Tensor) -> Tensor:
        """The network's v, like `latents` (B, C, F, H, W), at `times` (B,) given text (B, L, D)."""
        frames = latents.movedim(2, 1)  # diffusers has (B, F, C, H, W)
        rotary = rotary_embedding(frames.shape[1])
        return self.transformer(frames, text, times, image_rotary_emb=rotary).sample.movedim(1, 2)


def rotary_embedding(
    frames: int,
) -> tuple[Tensor, Tensor]:  # cosines and sines, each (F * h * w, 32)
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    return get_3d_rotary_pos_embed(32, ((0, 0), (GRID, GRID)), (GRID, GRID), frames)


def build(seed: int) -> Pocket:
    """Randomly initialised parts; the codec is to be fitted."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text_encoder = build_text_encoder(len(tokenizer))
    return Pocket(build_transformer(), text_encoder, tokenizer, build_scheduler(), PatchCodec())


def build_transformer() -> CogVideoXTransformer3DModel:
    from diffusers import CogVideoXTransformer3DModel

    return CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        num_layers=5,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        time_embed_dim=96,
        text_embed_dim=WIDTH,
        max_text_seq_length=LENGTH,
        sample_width=GRID,
        sample_height=GRID,
        sample_frames=FRAMES,
        patch_size=1,
        temporal_compression_ratio=1,
        spatial_interpolation_scale=0.5,  # apart enough to tell neighbouring patches
        temporal_interpolation_scale=0.25,  # and neighbouring frames
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,  # as CogVideoX-5B-I2V: frames must know their index
    )


def build_scheduler() -> CogVideoXDDIMScheduler:
    from diffusers import CogVideoXDDIMScheduler

    return CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        snr_shift_scale=3.0,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def load(folder: str | Path) -> Pocket:
    """Read a folder that `save` wrote; weights become float32, and nothing is unpickled.

    Raises JtError.
    """
    from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

    folder, safe = Path(folder), {"use_safetensors": True, "local_files_only": True}
    return Pocket(
        _read(
            folder / "transformer",
            CogVideoXTransformer3DModel.from_pretrained,
            torch_dtype=torch.float32,
            **safe,
        ).eval(),
        _read(
            folder / "text_encoder", T5EncoderModel.from_pretrained, dtype=torch.float32, **safe
        ).eval(),
        _read(folder / "tokenizer", PreTrainedTokenizerFast.from_pretrained),
        _read(folder / "scheduler", CogVideoXDDIMScheduler.from_pretrained),
        _read(folder / "codec", PatchCodec.from_pretrained),
    )


def _read(folder: Path, read: Callable[..., Part], **options: object) -> Part:
    """What a library makes of the folder of a part. Raises JtError."""
    if not folder.is_dir():
        raise JtError(f"{folder}: not found; {CURE}")
    try:
        return read(folder, **options)
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, SafetensorError) as error:
        told = (str(error).splitlines() or [""])[0]
        raise JtError(
            f"{folder}: cannot be loaded ({type(error).__name__}: {told}); {CURE}"
        ) from error


def save(pocket: Pocket, folder: str | Path) -> None:
    """Write the layout of a diffusers pipeline; networks are stored, and left, in float16."""
    folder = Path(folder)
    pocket.transformer.half().save_pretrained(folder / "transformer")
    pocket.text_encoder.half().save_pretrained(folder / "text_encoder")
    pocket.tokenizer.save_pretrained(folder / "tokenizer")
    pocket.scheduler.save_pretrained(folder / "scheduler")
    pocket.codec.save_pretrained(folder / "codec")


@torch.no_grad()
def sample(
    pocket: Pocket,
    prompts: Sequence[str],
    rng: Generator,
    frames: int = FRAMES,
    steps: int = 10,
    guidance: float = 2.0,
) -> Tensor:  # (B, 3, F, H, W) in [-1, 1]
    """Videos for `prompts` by deterministic DDIM with classifier-free guidance."""
    text = torch.cat([pocket.embed([""] * len(prompts)), pocket.embed(prompts)])
    latents = torch.randn(len(prompts), CHANNELS, frames, GRID, GRID, generator=rng)
    pocket.scheduler.set_timesteps(steps)
    for time in pocket.scheduler.timesteps:
        v = pocket.predict(latents.repeat(2, 1, 1, 1, 1), time.expand(len(text)), text)
        empty, prompted = v.chunk(2)
        v = empty + guidance * (prompted - empty)
        latents = pocket.scheduler.step(v, int(time), latents, return_dict=False)[0]
    return pocket.codec.decode(latents).clamp(-1, 1)
