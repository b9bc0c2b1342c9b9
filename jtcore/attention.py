"""Attention of the video to the text, met where a denoiser computes it: read as maps, or biased.

Nothing is replaced: for the length of a context a module's call of torch's own attention is seen
with the very queries and keys that it has, adapters, norms and positions in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from jtcore.errors import JtError

# what is asked beside the network's own attention is not computable on every kernel
ANY = [getattr(SDPBackend, f"{name}_ATTENTION") for name in ("FLASH", "EFFICIENT", "CUDNN")]
ANY.append(SDPBackend.MATH)
NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")  # of torch's attention


@frozen(eq=False)
class TextAttention:
    """A module of a denoiser in which video tokens attend to the text, alone or among others

    It calls torch's attention once, on queries whose last tokens are the video's, in order of
    frame, row and column, and keys whose first tokens are the text's. Frames may be folded into the
    batch, the sample outermost.
    """

    module: nn.Module
    joint: bool  # whether text tokens are among the queries too, and the video's among the keys
    patch: tuple[int, int, int]  # latent frames, rows and columns that a video token stands for

    def grid(self, frames: int, rows: int, columns: int) -> tuple[int, int, int]:
        """Video tokens along each axis of latents."""
        sizes = zip((frames, rows, columns), self.patch, strict=True)
        return tuple(-(-size // cells) for size, cells in sizes)


@frozen
class AttentionTo:
    """What a loss asks to see: the attention to a phrase at some sites"""

    phrase: str
    sites: str = "*"  # a pattern of their names
    cells: int | None = None  # only where a video token is that many latent rows high

    def choose(self, sites: Mapping[str, TextAttention]) -> dict[str, TextAttention]:
        """Raises JtError where there is none."""
        found = {
            name: site
            for name, site in sites.items()
            if fnmatchcase(name, self.sites) and self.cells in (None, site.patch[1])
        }
        if not found:
            heights = sorted({site.patch[1] for site in sites.values()})
            raise JtError(
                f"no attention to the text is called {self.sites!r} with tokens of {self.cells}"
                f" latent rows; there are {', '.join(sites)}, with tokens of {heights}"
            )
        return found


@frozen(eq=False)
class Call:
    """A module's call of torch's attention"""

    arguments: Mapping[str, Any]

    def answer(self) -> Tensor:  # (N, heads, queries, width)
        if self.arguments.get("attn_mask") is None:
            return scaled_dot_product_attention(**self.arguments)
        with sdpa_kernel(ANY):
            return scaled_dot_product_attention(**self.arguments)

    def biased(self, bias: Tensor) -> Call:  # (N, 1, video tokens, text tokens)
        """The same call with `bias` added to what video tokens make of text tokens."""
        query, key = self.arguments["query"], self.arguments["key"]
        assert self.arguments.get("attn_mask") is None, "the text attention has a mask of its own"
        whole = query.new_zeros(len(query), 1, query.shape[2], key.shape[2])
        whole[:, :, -bias.shape[2] :, : bias.shape[3]] = bias
        return evolve(self, arguments={**self.arguments, "attn_mask": whole})

    def probabilities(self, columns: Tensor, tokens: int) -> Tensor:
        """Of the last `tokens` queries, attention to text tokens weighted by `columns` (N, L, P),
        mean over heads: (N, tokens, P), float32.

        It is what attention answers where the values are those weights, so that memory holds no
        matrix of queries and keys on devices whose attention needs none.
        """
        query, key = self.arguments["query"].float(), self.arguments["key"].float()
        value = key.new_zeros(len(key), 1, *key.shape[2:])  # as wide as keys: fast attention asks
        text, phrases = columns.shape[1:]
        assert phrases <= value.shape[-1], f"{phrases} phrases at once"
        value[:, 0, :text, :phrases] = columns
        assert self.arguments.get("attn_mask") is None, "the text attention has a mask of its own"
        with torch.autocast(query.device.type, enabled=False), sdpa_kernel(ANY):
            found = scaled_dot_product_attention(
                query[:, :, -tokens:],
                key,
                value.expand_as(key),
                scale=self.arguments.get("scale"),
            )
        return found[..., :phrases].mean(1)


class Capture:
    """Maps of attention to chosen text tokens, read off the forwards of a context.

    Gradient checkpointing runs a forward again in backward, and there the maps must be computed as
    at first; but they are kept of the first alone, in the context of `recording`.
    """

    def __init__(
        self, sites: Mapping[str, TextAttention], columns: Tensor, grid: tuple[int, int]
    ) -> None:
        self.sites, self.grid = sites, grid  # latent rows and columns
        self.columns = columns  # (B, L, P), weights of text tokens for each of P phrases
        self.maps: dict[str, Tensor] | None = None

    @contextmanager
    def watching(self) -> Iterator[Capture]:
        """Through a forward and its backward."""
        modules = {name: site.module for name, site in self.sites.items()}
        with at_attention(modules, self._read):
            yield self

    @contextmanager
    def recording(self) -> Iterator[dict[str, Tensor]]:
        """Of one forward, by site: each (P, B, F, H, W) of video tokens, float32, with gradient."""
        self.maps = maps = {}
        try:
            yield maps
        finally:
            self.maps = None
        unseen = self.sites.keys() - maps.keys()
        assert not unseen, f"{sorted(unseen)} did not call torch's attention"

    def _read(self, name: str, call: Call) -> Tensor:
        site, query = self.sites[name], call.arguments["query"]
        _, rows, columns = site.grid(1, *self.grid)
        tokens = query.shape[2] - (self.columns.shape[1] if site.joint else 0)
        folded = len(query) // len(self.columns)  # frames in the batch
        found = call.probabilities(self.columns.repeat_interleave(folded, 0), tokens)
        if self.maps is not None:
            each = found.unflatten(1, (-1, rows, columns)).movedim(-1, 0)  # (P, N, F, H, W)
            self.maps[name] = each.reshape(len(each), len(self.columns), -1, rows, columns)
        return call.answer()


@contextmanager
def biased(
    sites: Mapping[str, TextAttention], bias: Callable[[TextAttention], Tensor | None]
) -> Iterator[None]:
    """Add `bias(site)`, (B, video tokens, text tokens), to what attention is computed from; where
    it is None, nothing is changed."""

    def answer(name: str, call: Call) -> Tensor:
        found = bias(sites[name])
        if found is None:
            return call.answer()
        query = call.arguments["query"]
        each = found.to(query).reshape(len(query), 1, -1, found.shape[-1])
        return call.biased(each).answer()

    with at_attention({name: site.module for name, site in sites.items()}, answer):
        yield


@contextmanager
def at_attention(
    modules: Mapping[str, nn.Module], answer: Callable[[str, Call], Tensor]
) -> Iterator[None]:
    """While modules run, `answer(name, call)` takes the place of torch's attention in them."""
    with ExitStack() as stack:
        for name, module in modules.items():
            met = _Met(partial(answer, name))
            for handle in (
                module.register_forward_pre_hook(met.begin),
                # also where recomputation stops in the middle, as it does by an exception
                module.register_forward_hook(met.end, always_call=True),
            ):
                stack.callback(handle.remove)
        yield


class _Met:
    """What a module's hooks do."""

    def __init__(self, answer: Callable[[Call], Tensor]) -> None:
        self.answer = answer
        self.modes: list[TorchFunctionMode] = []

    def begin(self, *_: Any) -> None:
        mode = _Seen(self.answer)
        mode.__enter__()
        self.modes.append(mode)

    def end(self, *_: Any) -> None:
        self.modes.pop().__exit__(None, None, None)


class _Seen(TorchFunctionMode):
    def __init__(self, answer: Callable[[Call], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence = (), kwargs: Any = None
    ) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self.answer(Call(dict(zip(NAMES, args, strict=False)) | (kwargs or {})))
