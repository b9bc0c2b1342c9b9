"""What CogVideoX, ZeroScope and Wan share: a published model's parts, stored or drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from jtcore import JtError

from ._checkpoint import Checkpoint, load_network
from ._networks import with_defaults
from ._random import random_network
from ._weight_files import digest

if TYPE_CHECKING:
    import torch
    from torch import nn

RANDOM = "random"
Config = Mapping[str, Any]


def _nothing(checkpoint: Checkpoint) -> str | None:
    return None


@frozen
class Layout:
    """What a kind of backbone expects of a pipeline, and which code makes what of its parts"""

    denoiser: str  # the part
    classes: Mapping[str, tuple[str, ...]]  # of diffusers or transformers, that parts may be of
    code: Mapping[str, tuple[str, ...]]  # modules beside this one, by the parts that they work with
    example: str  # a hub id
    refusal: Callable[[Checkpoint], str | None] = _nothing  # why a pipeline is of another task

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.denoiser, "vae", "text_encoder", "tokenizer", "scheduler")


@frozen
class Parts:
    """Parts of a checkpoint, or of random weights with `drawn` configurations"""

    layout: Layout
    weights: str  # a hub id, a folder or "random"
    variant: str | None
    revision: str | None
    seed: int  # of random weights
    drawn: Mapping[str, Config]

    @property
    def random(self) -> bool:
        return self.weights == RANDOM

    @property
    def checkpoint(self) -> Checkpoint:
        """Raises JtError where it is of another kind, whatever part it is wanted for: so all who
        ask are told the same."""
        found = Checkpoint(self.weights, self.variant, self.revision)
        for part in (self.layout.denoiser, "vae"):
            found.expect(part, *self.layout.classes[part])
        (name,) = self.layout.classes[self.layout.denoiser]
        more = reads_more(with_defaults(name, found.config(self.layout.denoiser)))
        why = "is told more than text, such as a picture to begin with" if more else None
        if why := why or self.layout.refusal(found):
            raise JtError(
                f"backbone.weights: {self.weights!r} {why}; this backbone is for text-to-video,"
                f" such as {self.layout.example}"
            )
        return found

    def config(self, part: str) -> Config:
        """Of denoiser and VAE with the defaults of their classes. Raises JtError."""
        names = self.layout.classes.get(part)
        if not self.random and names:
            self.checkpoint.expect(part, *names)
        config = self.drawn[part] if self.random else self.checkpoint.config(part)
        own = part in (self.layout.denoiser, "vae")
        return with_defaults(names[0], config) if own else config

    def network(
        self, part: str, device: torch.device, dtype: torch.dtype | Literal["auto"]
    ) -> nn.Module:
        """Denoiser or VAE, frozen; "auto" is the type that it is stored in. Raises JtError."""
        import torch

        (name,) = self.layout.classes[part]
        with torch.random.fork_rng(devices=[]):  # some classes draw weights, loaded or not
            if self.random:
                return random_network(name, self.drawn[part], self.seed, device, dtype)
            return load_network(name, self.checkpoint, part, device, dtype)

    def scheduler(self) -> Any:
        """diffusers' own of the pipeline. Raises JtError."""
        import diffusers

        config = self.config("scheduler")
        return getattr(diffusers, config["_class_name"]).from_config(dict(config))

    def identity(self, *parts: str) -> str:
        """Of the weights of `parts`, and of the code that works with them."""
        code = [name for part in parts for name in self.layout.code.get(part, ())]
        code += ["_random"] if self.random else []
        read = digest({name: Path(__file__).with_name(f"{name}.py") for name in code})
        if self.random:
            drawn = {part: dict(self.drawn[part]) for part in parts if part in self.drawn}
            return f"random {self.seed} {drawn} {read}"
        return f"{self.checkpoint.identity(*parts)} {read}"

    def problems(self) -> list[str]:
        """Parts that are missing, of another class, or not whole."""
        found = []
        for part in () if self.random else self.layout.parts:
            try:
                self.config(part)
                self.checkpoint.check_files(part)
            except JtError as error:
                found += error.problems
        return list(dict.fromkeys(found))


def reads_more(denoiser: Config) -> bool:
    """Whether it is told more than text: models that begin with a picture have further channels."""
    return denoiser["in_channels"] != denoiser["out_channels"]
