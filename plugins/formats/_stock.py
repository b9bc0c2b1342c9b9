"""Stock diffusers, and peft under it, as readers of LoRA files."""

from collections.abc import Collection
from pathlib import Path
from types import MappingProxyType

from torch import nn

from jtcore import JtError

NAME = "converted"  # of the adapter while it is checked
PIPELINES = MappingProxyType(  # of those with `load_lora_weights`, by the class of the denoiser
    {"CogVideoXTransformer3DModel": "CogVideoXPipeline", "WanTransformer3DModel": "WanPipeline"}
)


def has_loader(denoiser: nn.Module) -> bool:
    """Whether stock pipelines with this denoiser can load LoRA files."""
    return type(denoiser).__name__ in PIPELINES


def load_into_pipeline(path: Path, denoiser: nn.Module) -> str:
    """`pipe.load_lora_weights(path)` of a stock pipeline that has this denoiser and nothing else.

    Returns the reader's name.
    """
    require_peft()
    import diffusers

    cls = getattr(diffusers, PIPELINES[type(denoiser).__name__])
    others = dict.fromkeys(("tokenizer", "text_encoder", "vae", "scheduler"))
    cls(transformer=denoiser, **others).load_lora_weights(path, adapter_name=NAME)
    return f"{cls.__name__}.load_lora_weights"


def expect_layers(names: Collection[str], denoiser: nn.Module) -> None:
    """Raises JtError unless these linears and no others have got a LoRA."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = {name for name, one in denoiser.named_modules() if isinstance(one, BaseTunerLayer)}
    if odd := sorted(found.symmetric_difference(names)):
        raise JtError(
            f"{len(odd)} layers are not where they should be when diffusers reads it, the first"
            f" {odd[0]!r}"
        )


def require_peft() -> None:
    """Raises JtError where it is not installed."""
    try:
        import peft  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise JtError(
            "what is written is read again by diffusers, which needs peft for LoRA;"
            " pip install 'jtcore[peft]'"
        ) from error
