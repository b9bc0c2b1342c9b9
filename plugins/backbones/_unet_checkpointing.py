"""Gradient checkpointing for diffusers' `UNet3DConditionModel`, which has none of its own."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_modules(network: nn.Module) -> None:
    """Keep of each residual module its inputs alone, and run it again for backward.

    Nothing is replaced or renamed, so adapters may be attached before or after. They must answer in
    the second run as in the first: a pass of theirs never changes.
    """
    for module in network.modules():
        if isinstance(module, _kinds()):
            # bound to its module, so that a copied network runs its own weights
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


def _kinds() -> tuple[type[nn.Module], ...]:
    """None of them is inside another, and between them little is computed."""
    from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
    from diffusers.models.transformers.transformer_2d import Transformer2DModel
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    return ResnetBlock2D, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel
