"""What the metrics of pocket's world share: the video at the world's size, and the task's truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from jtcore.errors import JtError
from jtcore.framing import fit
from jtcore.types import Sample

from ..pocket.prompts import Wish, read_prompt
from ..pocket.task import NAME, Task, read_task, task_file
from ..pocket.world import FRAMES, SIZE

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class OfTask:
    """The option of a metric that needs a task, a file or folder"""

    task: str

    def problems(self) -> list[str]:
        """What keeps the task from being read, each with its place among the options."""
        try:
            self.read()
        except JtError as error:
            return [f"task: {problem}" for problem in error.problems]
        return []

    def files(self) -> list[Path]:
        return [task_file(Path(self.task))]

    def read(self) -> Task:
        """Raises JtError."""
        return read_task(Path(self.task))


def pixels(video: Tensor) -> np.ndarray:  # (3, F, H, W) -> (3, at most FRAMES, SIZE, SIZE)
    """A video, each in [0, 1], as the world has it; of a longer one, frames evenly spread."""
    chosen = np.linspace(0, video.shape[1] - 1, min(video.shape[1], FRAMES)).round().astype(int)
    shown = (video[:, chosen] * 255).round().clamp(0, 255).byte()
    return fit(shown, (SIZE, SIZE)).numpy().astype(np.float32) / 255


def wish(sample: Sample, task: Task | None = None) -> Wish:
    """What the prompt asks for; the task's name means its subject."""
    return read_prompt(sample.prompt, {NAME: task.sprite} if task else {})
