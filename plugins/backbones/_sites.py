"""The sites of a denoiser's blocks, found by the targets that lie in them."""

from collections.abc import Collection, Mapping

from torch import nn

from jtcore import JtError
from jtcore.targets import Targets
from jtcore.types import Site

Pairs = tuple[tuple[str, str], ...]  # names in a block: a norm, and the module that it is before


def match_sites(
    blocks: Mapping[str, nn.Module],
    pairs: Pairs,
    targets: Collection[str],
    query: Targets,
    streams: int = 1,
) -> dict[str, Site]:
    """The sites that hold one of `targets` or lie in one, in order of depth. Raises JtError."""
    every = _sites(blocks, pairs, streams)
    found = {
        name: site
        for name, site in every.items()
        if any(_holds(name, target) or _holds(target, name) for target in targets)
    }
    if not found:
        raise JtError(
            f"{query!r} has no attention or feed-forward of a block; name a role that has"
        )
    return found


def _holds(outer: str, inner: str) -> bool:
    return not outer or f"{inner}.".startswith(f"{outer}.")


def _sites(blocks: Mapping[str, nn.Module], pairs: Pairs, streams: int) -> dict[str, Site]:
    found = {}
    for depth, (path, block) in enumerate(blocks.items()):
        norms = [block.get_submodule(norm) for norm, _ in pairs]
        for place, (_, name) in enumerate(pairs):
            module, later = block.get_submodule(name), tuple(norms[place + 1 :])
            site = Site(norms[place], module, later, block, depth, _width(module), streams)
            found[f"{path}.{name}"] = site
    return found


def _width(module: nn.Module) -> int:
    """Of what an attention or a feed-forward answers: its last linear's."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1].out_features
