"""Progress: a live display with loss, speed and time left; lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jtcore import hookimpl

if TYPE_CHECKING:
    from rich import progress

    from jtcore.recipe import Recipe
    from jtcore.run import Run
    from jtcore.types import Step

LINES = 10  # a run, where lines are all that can be shown
SMOOTHING = 0.9  # of the shown loss: single draws of noise and time say little


class Progress:
    """What is shown of one run."""

    def __init__(self, run: Run, recipe: Recipe):
        from rich import get_console

        self.run = run
        self.steps = recipe.steps
        self.loss: float | None = None
        self.seconds: float | None = None
        self.live: progress.Progress | None = None
        self.task: progress.TaskID | None = None
        if get_console().is_terminal and not run.quiet:
            self._go_live()

    @hookimpl
    def jt_step_finished(self, step: Step, scalars: Mapping[str, float]) -> None:
        losses = [value for name, value in scalars.items() if ".losses." in name]
        if losses:
            self.loss = _smooth(self.loss, sum(losses))
        self.seconds = _smooth(self.seconds, scalars[f"stage.{step.stage}.step_seconds"])
        done = step.number + 1
        status = self._status(done)
        if self.live:
            self.live.update(self.task, completed=done, description=step.stage, status=status)
        elif done % max(1, self.steps // LINES) == 0 or done == self.steps:
            self.run.say(f"{step.stage} {done}/{self.steps}  {status}")
        if done == self.steps:
            self._close()

    @hookimpl
    def jt_run_finished(self) -> None:
        self._close()

    def _go_live(self) -> None:
        from rich import get_console, progress

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[status]}"),
        )
        self.live = progress.Progress(*columns, console=get_console())
        self.task = self.live.add_task("training", total=self.steps, status="")
        self.live.start()

    def _status(self, done: int) -> str:
        loss = "" if self.loss is None else f"loss {self.loss:.4f}  "
        left = round(self.seconds * (self.steps - done))
        return f"{loss}{1 / self.seconds:.1f} steps/s  {left // 60}:{left % 60:02d} left"

    def _close(self) -> None:
        if self.live:
            self.live.stop()
            self.live = None


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else SMOOTHING * old + (1 - SMOOTHING) * new


@hookimpl
def jt_observers() -> list[type]:
    return [Progress]
