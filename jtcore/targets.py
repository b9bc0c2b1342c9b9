"""Targets: which modules of a denoiser an adapter asks for, by role or by pattern."""

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from jtcore.errors import JtError


def match_targets(
    denoiser: nn.Module, roles: Mapping[str, tuple[str, ...]], query: str
) -> dict[str, nn.Module]:
    """The modules whose names match a role's patterns, or `query` itself where it has a `*` or `.`.

    Patterns are those of `fnmatch`: `transformer_blocks.*.attn1.to_[qkv]`.
    Raises JtError where the role is unknown or nothing matches.
    """
    patterns = roles.get(query) or ((query,) if "*" in query or "." in query else None)
    if patterns is None:
        close = get_close_matches(query, roles, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"roles are {', '.join(sorted(roles))}"
        raise JtError(f"unknown target role {query!r}; {hint}")
    found = {
        name: module
        for name, module in denoiser.named_modules()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not found:
        raise JtError(f"{query!r} matched no module of {type(denoiser).__name__}")
    return found
