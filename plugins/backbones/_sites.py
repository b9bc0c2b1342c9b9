"""The sites of a denoiser's blocks, found by the targets that lie in them."""

from collections.abc import Collection, Mapping

from torch import nn

from jtcore import JtError
from jtcore.types import Site

Pairs = tuple[tuple[str, str], ...]  # names in a block: a norm, and the module that it is before


def match_sites(
    blocks: Mapping[str, nn.Module],
    pairs: Pairs,
    targets: Collection[str],
    query: str,
    streams: int = 1,
) -> dict[str, Site]:
    """The sites that are among `targets`, or hold one of them, in order of depth. Raises JtError."""
    every = _sites(blocks, pairs, streams)
    found = {
        name: site
        for name, site in every.items()
        if any(f"{target}.".startswith(f"{name}.") for target in targets)
    }
    if not found:
        raise JtError(f"{query!r} has no attention or feed-forward of a block; name a role that has")
    return found


def _sites(blocks: Mapping[str, nn.Module], pairs: Pairs, streams: int) -> dict[str, Site]:
    found = {}
    for depth, (path, block) in enumerate(blocks.items()):
        norms = [block.get_submodule(norm) for norm, _ in pairs]
        for (_, name), norm, following in zip(pairs, norms, [*norms[1:], None], strict=True):
            module = block.get_submodule(name)
            width = _width(module)
            found[f"{path}.{name}"] = Site(norm, module, following, block, depth, width, streams)
    return found


def _width(module: nn.Module) -> int:
    """Of what an attention or a feed-forward answers: its last linear's."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1].out_features
