"""SIGTERM and SIGINT: end at the next safe point, with everything on disk."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jtcore.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether a signal has asked to end."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def check(self) -> None:
        """Raises Interrupted where a signal has asked to end: only where nothing can be lost."""
        if self.asked:
            raise Interrupted

    def ask(self, number: int, frame: object) -> None:
        if self.asked:  # the second one means it
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = True
        self.say(f"{signal.Signals(number).name}: ending at the next safe point")


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[Stop]:
    """Let SIGTERM and SIGINT ask for an end, until the block is left."""
    stop = Stop(say)
    before = {number: signal.signal(number, stop.ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
