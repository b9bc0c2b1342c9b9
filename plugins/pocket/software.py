"""What a computation ran on, as a card tells it."""

from __future__ import annotations

import platform
from importlib.metadata import version

PACKAGES = ("torch", "diffusers", "transformers", "numpy")


def versions() -> dict[str, str]:
    """Of the packages that shape numbers."""
    return {name: version(name) for name in PACKAGES}


def python() -> str:
    return platform.python_version()
