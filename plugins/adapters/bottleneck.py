"""DreamVideo's adapters: bottlenecks on the residual stream, beside attention and feed-forward."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import gt, in_, optional
from torch import Tensor, nn

from jtcore import hookimpl
from jtcore.adapter import Adapter
from jtcore.targets import Targets
from jtcore.types import Backbone, Site

from ._bottleneck import Bottleneck
from ._linear import place, relative_size, spread

Streams = tuple[Tensor, ...]  # (N, L, c) each: the video's and, where there is one, the text's
Update = Callable[[Streams], None]
Position = Literal["parallel", "serial"]


@frozen
class ResidualBottleneck:
    """DreamVideo's adapter: a bottleneck on the residual stream, which an image may condition

    x <- x + module(norm(x)) + scale * U GELU(D (x + strength (V y + c)) + b) + b'
    (https://arxiv.org/abs/2312.04433), which changes nothing at first: U and b' are 0. It is added
    to the stream itself, outside the gates that DiTs have. "serial" reads the stream after the
    module was added. `width` of the bottleneck is half of the stream's unless said.
    `reference_width` is how many numbers of an image embedding y it reads, such as 1024; a pass
    without a picture, or at strength 0, has neither V y nor c. `text`: on CogVideoX, whose text
    tokens are a stream of their own, these too.
    """

    targets: Targets
    width: int | None = field(default=None, validator=optional(gt(0)))
    reference_width: int | None = field(default=None, validator=optional(gt(0)))
    position: Position = field(default="parallel", validator=in_(get_args(Position)))
    text: bool = False

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> "ResidualAdapter":
        return ResidualAdapter(backbone.sites(self.targets), self)


class ResidualAdapter(Adapter):
    """A bottleneck for each site, stored under the path of the module that it is beside.

    Hooks see what enters the norms of a block and what leaves the block, but never the stream in
    between. So what was added to it is carried along: it is put into what enters each later norm
    and, at last, into what leaves the block. Gates and other adapters find the stream as if it had
    been added there. What is carried lives while one block runs; a recomputed block begins anew.
    """

    def __init__(self, sites: Mapping[str, Site], options: ResidualBottleneck) -> None:
        super().__init__()
        self.varies = options.reference_width is not None  # a pass may have no picture
        self.carried: dict[int, Tensor] = {}  # by number of the stream, in the block that runs
        self.dtype: torch.dtype | None = None  # of that block
        self.relative: dict[str, Tensor] = {}  # (), |update| / |stream| of the last pass
        blocks: dict[nn.Module, list[tuple[Site, Update]]] = {}
        for name, site in sites.items():
            width = options.width or max(site.width // 2, 1)
            device = next(site.module.parameters()).device
            network = Bottleneck(site.width, width, options.reference_width, device)
            place(self, name, network)
            streams = site.streams if options.text else 1
            update = partial(self._update, name, network, streams)
            blocks.setdefault(site.block, []).append((site, update))
        for block, updates in blocks.items():
            self._hook(block, updates, serial=options.position == "serial")

    def _hook(self, block: nn.Module, updates: Sequence[tuple[Site, Update]], serial: bool) -> None:
        """Of a parallel site what enters the norm is read, of a serial one what leaves the site,
        which enters the next norm or leaves the block."""
        after = {}
        for site, update in updates:
            if serial:
                after[site.following[0] if site.following else block] = update
            else:
                site.norm.register_forward_hook(partial(self._read, update))
        block.register_forward_pre_hook(self._begin, with_kwargs=True)
        for norm in updates[0][0].following:
            norm.register_forward_pre_hook(partial(self._enter, after.get(norm)))
        block.register_forward_hook(partial(self._leave, after.get(block)))

    def _begin(self, block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.current is not None:
            self.carried.clear()
            self.dtype = (inputs[0] if inputs else named["hidden_states"]).dtype

    def _read(self, update: Update, norm: nn.Module, inputs: Streams, output: object) -> None:
        """After all hooks before the norm, so that it is told what other adapters carry, too."""
        if self.current is not None:
            update(inputs)

    def _enter(self, update: Update | None, norm: nn.Module, inputs: Streams) -> Streams | None:
        if self.current is None:
            return None
        if update:
            update(self._with_carried(inputs))
        return self._with_carried(inputs)

    def _leave(
        self, update: Update | None, block: nn.Module, inputs: object, output: Tensor | Streams
    ) -> Tensor | Streams | None:
        if self.current is None:
            return None
        streams = (output,) if isinstance(output, Tensor) else output
        if update:
            update(self._with_carried(streams))
        whole = self._with_carried(streams)
        self.carried.clear()
        return whole[0] if isinstance(output, Tensor) else whole

    def _with_carried(self, streams: Streams) -> Streams:
        return tuple(
            stream + self.carried[number].to(stream) if number in self.carried else stream
            for number, stream in enumerate(streams)
        )

    def _update(self, name: str, network: Bottleneck, count: int, streams: Streams) -> None:
        """Carry on what the bottleneck adds to the first `count` of the streams."""
        for number in range(count):
            x = streams[number].to(self.dtype)
            added = network(x, self.current)
            added = added * spread(self.current.scale, x, self.current.batch)
            self.carried[number] = self.carried.get(number, 0) + added
            if not self.training and number == 0:
                self.relative[name] = relative_size(added.detach(), x.detach())

    def scalars(self) -> Mapping[str, Tensor]:
        """Outside training, the mean over sites of |update| / |stream| in the last pass: ()."""
        if self.training or not self.relative:
            return {}
        return {"relative_update": torch.stack(list(self.relative.values())).mean()}


@hookimpl
def jt_adapters() -> dict[str, type]:
    return {"bottleneck": ResidualBottleneck}
