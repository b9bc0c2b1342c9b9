"""Networks of diffusers and transformers, by the names of their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def with_defaults(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of the class `name`, with what files older than an option do not say."""
    options = signature(network_class(name)).parameters.values()
    known = {each.name: each.default for each in options if each.default is not each.empty}
    return known | dict(config)


def bare_network(name: str, config: Mapping[str, Any], device: torch.device) -> nn.Module:
    """A network of the class `name`, with weights as its constructor draws them; on "meta" none."""
    cls = network_class(name)
    with device:
        if hasattr(cls, "config_class"):  # of transformers
            return cls(cls.config_class.from_dict(dict(config)))
        return cls.from_config(dict(config))


def freeze(model: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
    """On `device` and in `dtype`, without gradients or dropout. What diffusers keeps in float32
    when it loads a network stays in it."""
    from torch import float32, nn

    nn.Module.to(model, device)  # the classes' own `to` warns of a dtype
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if dtype and tensor is not None and tensor.is_floating_point():
                precise = not kept.isdisjoint(f"{path}.{name}".split("."))
                tensor.data = tensor.data.to(float32 if precise else dtype)
    return model.requires_grad_(False).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep diffusers and transformers from drawing progress bars."""
    import diffusers
    import transformers

    logs = [library.utils.logging for library in (diffusers, transformers)]
    shown = [log for log in logs if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()


def network_class(name: str) -> Any:
    """Of diffusers, or of transformers where that has none of the name."""
    import diffusers
    import transformers

    return getattr(diffusers, name, None) or getattr(transformers, name)
