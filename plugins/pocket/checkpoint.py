"""Checkpoints that are whole or absent, and a log of losses that follows them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from statistics import fmean

import torch

from jtcore.errors import JtError
from jtcore.files import write_atomically


def write(path: Path, state: dict) -> None:
    with write_atomically(path) as aside:
        torch.save(state, aside)


def read(path: Path) -> dict | None:
    """What `write` wrote, None without a file. Nothing but tensors and plain values is unpickled.

    Raises JtError where the file is another, or not whole.
    """
    try:
        return torch.load(path, weights_only=True) if path.exists() else None
    except (UnpicklingError, EOFError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise JtError(unreadable(path, error)) from error


def unreadable(path: Path, error: Exception) -> str:
    """What to tell of a checkpoint that is of no use."""
    found = f"not a whole checkpoint of this version ({type(error).__name__})"
    return f"{path}: {found}; remove it to begin anew, or choose another folder"


CURVE = 16  # points of a loss curve


class LossLog:
    """A CSV of every step's loss; rows after the resumed `step` are dropped, to be written anew"""

    def __init__(self, path: Path, step: int, window: int = 200) -> None:
        self.recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=window))
        self.path = path
        rows = path.read_text().splitlines()[1 : step + 1] if path.exists() else []
        self.file = path.open("w", buffering=1)
        self.file.write("step,kind,loss\n")
        for row in rows:
            number, kind, loss = row.split(",")
            self.add(int(number), kind, float(loss))

    def add(self, step: int, kind: str, loss: float) -> None:
        self.recent[kind].append(loss)
        self.file.write(f"{step},{kind},{loss:.6g}\n")

    def close(self) -> None:
        self.file.close()

    def means(self) -> dict[str, float]:
        """The mean loss of each kind over its last steps."""
        return {kind: sum(losses) / len(losses) for kind, losses in sorted(self.recent.items())}

    def summary(self) -> str:
        return "  ".join(f"{kind} {mean:.4f}" for kind, mean in self.means().items())

    def curve(self) -> list[dict]:
        """The mean loss of each kind over each of CURVE equal spans: `step` ends one."""
        rows = [row.split(",") for row in self.path.read_text().splitlines()[1:]]
        bounds = [len(rows) * point // CURVE for point in range(CURVE + 1)]
        return [
            {"step": end, "losses": _means(rows[start:end])}
            for start, end in pairwise(bounds)
            if end
        ]


def _means(rows: Sequence[Sequence[str]]) -> dict[str, float]:
    losses = defaultdict(list)
    for _, kind, loss in rows:
        losses[kind].append(float(loss))
    return {kind: round(fmean(values), 5) for kind, values in sorted(losses.items())}
