"""How far measuring has come: a bar on a terminal, a line for each metric elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich import progress


class Lines:
    """A line as each metric begins."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say

    def metric(self, name: str, videos: int, known: int) -> None:
        self.say(f"{name}: {_share(videos, known)}")

    def measured(self) -> None: ...


class Bar:
    """A bar for each metric."""

    def __init__(self, live: progress.Progress):
        self.live = live
        self.task: progress.TaskID | None = None

    def metric(self, name: str, videos: int, known: int) -> None:
        self.task = self.live.add_task(name, total=videos, status=_share(videos, known))

    def measured(self) -> None:
        self.live.advance(self.task)


@contextmanager
def watching(quiet: bool, say: Callable[[str], None]) -> Iterator[Lines | Bar]:
    """What hears of the measuring in this block."""
    from rich import get_console, progress

    if quiet or not get_console().is_terminal:
        yield Lines(say)
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[status]}"),
    )
    with progress.Progress(*columns, console=get_console()) as live:
        yield Bar(live)


def _share(videos: int, known: int) -> str:
    return f"{videos} videos" + (f", {known} of them known already" if known else "")
