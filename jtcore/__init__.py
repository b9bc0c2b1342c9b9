"""The engine of customised video generation: it trains what recipes say with what plugins bring."""

from pluggy import HookimplMarker

from jtcore.errors import JtError

__version__ = "0.1.0"

hookimpl = HookimplMarker("jtcore")
"""Marks a plugin's function as the implementation of the hook of the same name."""

__all__ = ["JtError", "__version__", "hookimpl"]
