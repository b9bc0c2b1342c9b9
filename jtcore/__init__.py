"""The engine of customised video generation: it trains what recipes say with what plugins bring."""

from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker

from jtcore.errors import JtError

if TYPE_CHECKING:
    from jtcore.pipelines import load_adapters

__version__ = "0.1.0"

hookimpl = HookimplMarker("jtcore")
"""Marks a plugin's function as the implementation of the hook of the same name."""

__all__ = ["JtError", "__version__", "hookimpl", "load_adapters"]


def __getattr__(name: str) -> Any:
    """`load_adapters`, which needs torch; commands answer --help before that is imported."""
    if name == "load_adapters":
        from jtcore.pipelines import load_adapters

        return load_adapters
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
