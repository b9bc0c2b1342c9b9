"""Text files with one value a line, such as prompts."""

import os
from pathlib import Path

from jtcore.errors import JtError


def read_lines(path: str) -> list[str]:
    """The lines of a file, but for blank ones and those that begin with `#`. Raises JtError."""
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib raises where a name is too long
        raise JtError(f"no file {path!r}; give a text file with one a line, or a list")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise JtError(f"{path!r} is not UTF-8 text; give a text file with one a line") from None
    except OSError as error:
        raise JtError(f"{path!r}: {error.strerror}") from None
    lines = [line.strip() for line in text.splitlines()]
    told = [line for line in lines if line and not line.startswith("#")]
    if not told:
        raise JtError(f"{path!r} holds none; write one a line")
    return told
