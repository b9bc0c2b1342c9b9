"""How alike the frames of a video are, by their embeddings."""

from torch import Tensor


def consecutive(frames: Tensor) -> float:  # (F, E), of length 1, two or more
    """Mean cosine of each frame and the one before it, in [-1, 1]."""
    return (frames[1:] * frames[:-1]).sum(1).mean().item()


def vbench(frames: Tensor) -> float:  # (F, E), of length 1, two or more
    """Mean over all frames but the first of the cosines to the one before and to the first, each
    not below 0, and halved (https://arxiv.org/abs/2311.17982)."""
    before = (frames[1:] * frames[:-1]).sum(1).clamp(min=0)
    first = (frames[1:] * frames[:1]).sum(1).clamp(min=0)
    return ((before + first) / 2).mean().item()
