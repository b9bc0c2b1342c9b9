"""Stand-ins for pretrained weights: to measure time and memory, and to try out a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from attrs import Attribute, evolve, frozen

from ._networks import freeze, network_class

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@frozen
class RandomText:
    """Embeddings of a text encoder's shape, drawn from a hash of the prompt: there is no tokenizer,
    so every prompt fits, and one that differs by a letter has nothing in common"""

    length: int  # tokens
    width: int
    seed: int
    device: torch.device

    def embed(self, prompts: Sequence[str]) -> Tensor:  # (B, L, D), float32, of variance 1
        import torch

        return torch.stack([self._draw(prompt) for prompt in prompts]).to(self.device)

    def _draw(self, prompt: str) -> Tensor:  # (L, D)
        import torch

        digest = sha256(f"{self.seed} {prompt}".encode()).digest()
        rng = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
        return torch.randn(self.length, self.width, generator=rng)


def random_network(
    name: str,
    config: Mapping[str, Any],
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    """The class `name` of diffusers with a `config` and drawn weights, frozen.

    Weights are drawn one by one on the CPU, in float32, so they are the same on every device and in
    every type, and memory holds one copy of the network. On "meta" there are none.
    """
    import torch
    from accelerate import init_empty_weights

    bare = device.type == "meta"
    # buffers are computed from the configuration, not drawn
    with init_empty_weights(include_buffers=bare):
        model = network_class(name).from_config(dict(config))
    if not bare:
        rng = torch.Generator().manual_seed(seed)
        for module in model.modules():
            for key, weight in module.named_parameters(recurse=False):
                drawn = _draw(key, weight.shape, rng).to(device, dtype)
                setattr(module, key, torch.nn.Parameter(drawn))
    return freeze(model, device, dtype)


def _draw(name: str, shape: torch.Size, rng: torch.Generator) -> Tensor:
    """Norms do nothing, and a layer keeps about a third of its input's variance, as torch's own."""
    import torch

    if len(shape) < 2:
        return torch.zeros(shape) if name == "bias" else torch.ones(shape)
    fan_in = shape[1:].numel()
    return torch.randn(shape, generator=rng) / (3 * fan_in) ** 0.5


def drawn_as(spec: Any, size: Mapping[str, Any]) -> Any:
    """The options of a backbone with drawn weights of a published size in place of those."""
    return evolve(spec, weights="random", variant=None, revision=None, **size)


def of_random_alone(spec: Any, attribute: Attribute, value: object) -> None:
    """Validates an option that is without meaning where `weights` are stored."""
    if value is not None and spec.weights != "random":
        raise ValueError(f'is of weights = "random" alone, found weights = {spec.weights!r}')


def of_files_alone(spec: Any, attribute: Attribute, value: object) -> None:
    """Validates an option that is without meaning where `weights` are drawn."""
    if value is not None and spec.weights == "random":
        raise ValueError("is of files, which random weights have not; leave it out")
