"""Targets: which modules of a denoiser an adapter asks for, by roles or by patterns."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from jtcore.errors import JtError
from jtcore.near import did_you_mean

Targets = str | tuple[str, ...]  # the type of an adapter's option: one query, or several
WHOLE = {"all": ("",)}  # the role that every denoiser has: itself


def match_targets(
    denoiser: nn.Module, roles: Mapping[str, tuple[str, ...]], query: Targets
) -> dict[str, nn.Module]:
    """The modules whose names match a role's patterns, or `query` itself where it has a `*` or `.`;
    of several queries, those that match any, each once, in the denoiser's order.

    Patterns are those of `fnmatch`: `transformer_blocks.*.attn1.to_[qkv]`.
    Raises JtError where a role is unknown or a query matches nothing.
    """
    queries = (query,) if isinstance(query, str) else query
    if not queries:
        raise JtError("expected a role or pattern of modules, or several; got none")
    found = {name for one in queries for name in _matches(denoiser, WHOLE | dict(roles), one)}
    return {name: module for name, module in denoiser.named_modules() if name in found}


def _matches(denoiser: nn.Module, roles: Mapping[str, tuple[str, ...]], query: str) -> list[str]:
    patterns = roles.get(query) or ((query,) if "*" in query or "." in query else None)
    if patterns is None:
        raise JtError(f"unknown target role {query!r}; {did_you_mean(query, roles)}")
    found = [
        name
        for name, _ in denoiser.named_modules()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    if not found:
        raise JtError(f"{query!r} matched no module of {type(denoiser).__name__}")
    return found
