"""Small denoisers with random weights as backbones, without files, and something to ask them."""

import torch
from attrs import frozen
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from torch import Tensor

from jtplugins.backbones._cogvideox import CogVideoXBackbone
from jtplugins.backbones._unet import UNetBackbone
from jtplugins.backbones._wan import WanBackbone

from .cogvideox import TRANSFORMER
from .unet import WIDTH, build_unet

KINDS = ("unet", "cogvideox", "wan")
LAYERS = 4  # of the transformers; the UNet has 9 blocks


@frozen(eq=False)
class Asked:
    """A batch for `predict`"""

    latents: Tensor  # (2, C, F, H, W)
    times: Tensor  # (2,)
    text: Tensor  # (2, L, D)

    def put(self, backbone) -> Tensor:  # (2, C, F, H, W)
        return backbone.predict(self.latents, self.times, self.text)


def build(kind: str, seed: int = 0):
    """A frozen backbone of that kind, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {"unet": _unet, "cogvideox": _cogvideox, "wan": _wan}[kind]()


def ask(kind: str, seed: int = 1, times: tuple[int, int] = (100, 900)) -> Asked:
    shapes = {
        "unet": ((4, 3, 4, 6), (5, WIDTH)),
        "cogvideox": ((4, 3, 4, 6), (TRANSFORMER["max_text_seq_length"], 32)),
        "wan": ((16, 2, 4, 6), (5, 32)),
    }
    rng = torch.Generator().manual_seed(seed)
    latents, text = (torch.randn(2, *shape, generator=rng) for shape in shapes[kind])
    return Asked(latents, torch.tensor(times), text)


def _unet() -> UNetBackbone:
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return UNetBackbone(_frozen(build_unet()), DDIMScheduler(**schedule))


def _cogvideox() -> CogVideoXBackbone:
    options = {"num_layers": LAYERS, "use_rotary_positional_embeddings": True}
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False
    )
    network = CogVideoXTransformer3DModel(**TRANSFORMER | options)
    return CogVideoXBackbone(_frozen(network), scheduler)


def _wan() -> WanBackbone:
    network = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=32,
        ffn_dim=32,
        num_layers=LAYERS,
        rope_max_seq_len=64,
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    return WanBackbone(_frozen(network), scheduler, 3.0)


def _frozen(network: torch.nn.Module) -> torch.nn.Module:
    return network.requires_grad_(False).eval()
