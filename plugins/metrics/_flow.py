"""Optical flow: the options that choose how it is computed, and lengths that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from attrs import field, frozen
from attrs.validators import ge, in_

from jtcore.evaluation.identity import file_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FlowName = Literal["dis", "raft"]
SIDE = 256  # pixels of the shorter side, at which lengths are given

# of a video (3, F, H, W) in [0, 1]; (2, H, W) pixels right and down, for each frame but the last
Flow = Callable[["Tensor"], Iterator["Tensor"]]


@frozen
class OfFlow:
    """The options of a metric of optical flow"""

    flow: FlowName = field(default="dis", validator=in_(get_args(FlowName)))
    model: str | None = None
    batch: int = field(default=4, validator=ge(1))

    def __attrs_post_init__(self) -> None:
        if self.model is not None and self.flow != "raft":
            raise ValueError(f'expected model with flow = "raft", got {self.flow!r}')

    def problems(self) -> list[str]:
        if self.flow != "raft":
            return []
        from ._raft import PUBLISHED, raft_problems

        return raft_problems(self.model or PUBLISHED.hub)

    def files(self) -> list[Path]:
        """The network's, if it has one. Raises JtError."""
        if self.flow != "raft":
            return []
        from ._raft import PUBLISHED

        return [PUBLISHED.find(self.model or PUBLISHED.hub)]

    def flow_identity(self) -> dict[str, Any]:
        """Which flow it is, and all that it depends on besides the options."""
        if self.flow == "raft":
            from ._raft import ITERATIONS

            (weights,) = OfFlow.files(self)
            return {"name": "raft", "iterations": ITERATIONS, "weights": file_digest(weights)}
        from ._opencv import dis_identity

        return dis_identity()

    def load_flow(self, device: torch.device) -> Flow:
        """Raises JtError."""
        if self.flow == "raft":
            from ._raft import load_raft

            (weights,) = OfFlow.files(self)
            return load_raft(weights, device, self.batch)
        from ._opencv import DIS

        return DIS()
