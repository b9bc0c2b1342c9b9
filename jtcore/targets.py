"""Targets: which modules of a denoiser an adapter asks for, by role or by pattern."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from jtcore.errors import JtError
from jtcore.near import did_you_mean


def match_targets(
    denoiser: nn.Module, roles: Mapping[str, tuple[str, ...]], query: str
) -> dict[str, nn.Module]:
    """The modules whose names match a role's patterns, or `query` itself where it has a `*` or `.`.

    Patterns are those of `fnmatch`: `transformer_blocks.*.attn1.to_[qkv]`.
    Raises JtError where the role is unknown or nothing matches.
    """
    patterns = roles.get(query) or ((query,) if "*" in query or "." in query else None)
    if patterns is None:
        raise JtError(f"unknown target role {query!r}; {did_you_mean(query, roles)}")
    found = {
        name: module
        for name, module in denoiser.named_modules()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not found:
        raise JtError(f"{query!r} matched no module of {type(denoiser).__name__}")
    return found
