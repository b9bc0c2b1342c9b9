"""Files that released code wrote with `torch.save`, read without running what they say."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from jtcore import JtError


def load_released(path: Path, what: str) -> Any:
    """What is in a file, on the CPU. Raises JtError where it cannot be read as `what`, alone."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise JtError("there is no such file") from error
    except (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise JtError(f"cannot be read as {what} alone: {told[0]}") from error
