"""What the contracts share: a CogVideoX of two small blocks, and something to ask it."""

import pytest
import torch
from attrs import frozen
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from torch import Tensor

from jtplugins.backbones._cogvideox import CogVideoXBackbone


@frozen(eq=False)
class Question:
    """A batch for `predict`"""

    latents: Tensor  # (B, C, F, H, W)
    times: Tensor  # (B,)
    text: Tensor  # (B, L, D)

    def put(self, backbone: CogVideoXBackbone) -> Tensor:  # (B, C, F, H, W)
        return backbone.predict(self.latents, self.times, self.text)


@pytest.fixture
def backbone() -> CogVideoXBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=8,
            num_layers=2,
            sample_width=4,
            sample_height=4,
            max_text_seq_length=5,
            use_rotary_positional_embeddings=True,
        )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False
    )
    return CogVideoXBackbone(denoiser.requires_grad_(False), scheduler)


@pytest.fixture
def question() -> Question:
    rng = torch.Generator().manual_seed(1)
    return Question(
        torch.randn(2, 4, 3, 4, 4, generator=rng),
        torch.tensor([100, 900]),
        torch.randn(2, 5, 8, generator=rng),
    )
