"""Files of MUSIQ and AMT-S, with the names and shapes that the published ones have."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jtplugins.metrics._amt import AMTS
from jtplugins.metrics._musiq import MUSIQ, Sizes

TINY = Sizes(width=128, hidden=96, layers=2)


def build_musiq(folder: Path, sizes: Sizes = TINY) -> Path:
    """Write a small one to `folder`, by its published name."""
    return write(MUSIQ(sizes), folder / "musiq_spaq_ckpt-358bb6af.pth")


def build_amt(folder: Path) -> Path:
    """Write one of the published size to `folder`, by its published name and beside what training
    left."""
    path = folder / "amt-s.pth"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 300, "state_dict": filled(AMTS().state_dict())}, path)
    return path


def write(network: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(filled(network.state_dict()), path)
    return path


def filled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drawn from a stream that numpy promises to keep, in the order of their names: so that
    numbers can be compared with those of other code."""
    rng = np.random.RandomState(0)
    return {name: _drawn(rng, name, tuple(tensors[name].shape)) for name in sorted(tensors)}


def drawn_picture(*shape: int, seed: int = 1) -> Tensor:  # whole pixel values / 255
    values = np.random.RandomState(seed).randint(0, 256, shape)
    return torch.from_numpy(values).to(torch.float32) / 255


def _drawn(rng: np.random.RandomState, name: str, shape: tuple[int, ...]) -> Tensor:
    values = rng.uniform(-1, 1, shape)
    if name.endswith(("_emb", "cls")):
        values = values / 2
    elif len(shape) > 1:
        values = values * (3 / prod(shape[1:])) ** 0.5
    else:
        values = values / 10 + (name.endswith("weight") and shape != (1,))
    return torch.from_numpy(values).to(torch.float32)
